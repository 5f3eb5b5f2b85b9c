//! M1: the cost of a scrape and of a counter's update.

use std::{
    fmt::Write as _,
    hint::black_box,
    time::{Duration, Instant},
};

use proto::{Dialect, ErrorCode};
use telemetry::metrics::{Now, RelayMetrics};

use crate::stats::{Figure, Goal, Sample};

const ROUNDS: usize = 200;
const UPDATES: u32 = 100_000;

/// Measures both, compared with writing as many lines by hand.
pub(crate) fn measure() -> Vec<Figure> {
    let metrics = RelayMetrics::new();
    for n in 0..15 {
        metrics.tokens(&format!("model-{n}"), 100, 200);
    }
    let text = metrics.render(&Now::default());
    let lines: Vec<&str> = text.lines().collect();
    let series = lines.iter().filter(|line| !line.starts_with('#')).count();
    let by_hand = || {
        let mut out = String::with_capacity(16 * 1024);
        for (n, line) in lines.iter().enumerate() {
            let name = line.split(' ').next().unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name} {n}");
        }
        out
    };
    let floor = micros(by_hand);
    let render = micros(|| metrics.render(&Now::default()));
    let update = nanos(|| metrics.queued(black_box(Dialect::OpenAi)));
    let refused = nanos(|| metrics.refused(black_box(ErrorCode::QueueFull)));
    vec![
        Figure {
            name: format!("M1 render {series} series, µs"),
            value: render,
            goal: Goal::AtMost(25.0),
            detail: format!(
                "{:.1} times as many lines by hand, {floor:.1} µs",
                render / floor
            ),
        },
        Figure {
            name: "M1 update of a counter with a label, ns".to_owned(),
            value: update,
            goal: Goal::AtMost(15.0),
            detail: format!("{refused:.1} ns among the codes of errors"),
        },
    ]
}

fn micros(act: impl Fn() -> String) -> f64 {
    let one = |_| {
        let begun = Instant::now();
        black_box(act());
        begun.elapsed()
    };
    (0..ROUNDS).map(one).collect::<Sample>().median() * 1000.0
}

fn nanos(act: impl Fn()) -> f64 {
    let many = |_| {
        let begun = Instant::now();
        for _ in 0..UPDATES {
            act();
        }
        begun.elapsed()
    };
    let sample: Sample = (0..20)
        .map(many)
        .collect::<Vec<Duration>>()
        .into_iter()
        .collect();
    sample.median() * 1_000_000.0 / f64::from(UPDATES)
}
