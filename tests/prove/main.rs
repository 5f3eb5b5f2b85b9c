//! `hearth-prove [WHAT…]`: the long proofs, run by `./x prove`. Each prints a line with its own
//! counts.

mod controls;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use hearth_tests::{
    headline::{Headline, erasure, hostile},
    kills::{self, Plan},
};
use tokio::time::timeout;

const USAGE: &str = "usage: hearth-prove [all] [kills] [light-kills] [power-cuts] \
    [few-power-cuts] [weather] [hostile] [light-hostile] [erasure] [controls [BUG…]]";

/// Timeout of one proof; its processes end with it.
const PROVEN_WITHIN: Duration = Duration::from_secs(20 * 60);

/// The parts of the headline.
const ALL: [&str; 5] = ["kills", "power-cuts", "weather", "hostile", "erasure"];

#[tokio::main]
async fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() || wanted == ["all"] {
        wanted = ALL.map(str::to_owned).into();
    }
    // What the proofs have started ends with them.
    let ran = tokio::select! {
        ran = run(&wanted) => ran,
        _ = tokio::signal::ctrl_c() => Err(io::ErrorKind::Interrupted.into()),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "hearth-prove: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(wanted: &[String]) -> io::Result<()> {
    let mut out = io::stdout();
    let mut headline = Headline::default();
    if wanted.iter().any(|what| what == "controls") {
        return controls::run(wanted).await;
    }
    for what in wanted {
        let plan = match what.as_str() {
            "kills" => Plan::kills(20, 1),
            "light-kills" => Plan::kills(20, 1).light(),
            "power-cuts" => Plan::power_cuts(50, 2),
            "few-power-cuts" => Plan::power_cuts(3, 2),
            "weather" => Plan::weather(4, 3),
            "hostile" | "light-hostile" => {
                let (count, examples) = match what.as_str() {
                    "hostile" => (20_000, 40),
                    _ => (5_000, 0),
                };
                let more = hostile(count, examples, 4).await?;
                writeln!(out, "{what}: {}", more.assault)?;
                headline.assault.add(more.assault);
                headline.leaked.extend(more.leaked);
                continue;
            }
            "erasure" => {
                let more = erasure(5).await?;
                writeln!(out, "{what}: {}", more.verdict)?;
                headline.verdict.add(more.verdict);
                headline.leaked.extend(more.leaked);
                continue;
            }
            _ => return Err(io::Error::other(USAGE)),
        };
        let report = timeout(PROVEN_WITHIN, kills::run(&plan)).await;
        let report = report.map_err(|_| io::Error::other("the proof does not end"))??;
        writeln!(out, "{what}: {report}")?;
        headline.add(report);
    }
    writeln!(out, "{headline}")?;
    if headline.is_clean() {
        Ok(())
    } else {
        Err(io::Error::other("a promise was broken"))
    }
}
