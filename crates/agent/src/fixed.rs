//! The limits that no option sets, for `--print-config`.

use std::{fmt::Write as _, time::Duration};

use engine::EngineTimes;
use proto::limits;
use worker::Tuning;

/// Lists the limits that no option sets, as comments of a settings file. Times are in seconds,
/// sizes in bytes.
pub(crate) fn lines() -> String {
    let mut text = String::new();
    for (name, value) in all() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# {name} = {value} (fixed)");
    }
    text
}

fn all() -> Vec<(&'static str, String)> {
    [relay(), engine(), hub()].into_iter().flatten().collect()
}

fn relay() -> Vec<(&'static str, String)> {
    let tuning = Tuning::default();
    vec![
        ("connect-timeout", seconds(tuning.connect)),
        ("ping-interval", seconds(tuning.ping)),
        ("silence-timeout", seconds(tuning.dead)),
        ("stall-timeout", seconds(tuning.write_stall)),
        ("renewal-interval", seconds(tuning.heartbeat)),
        ("poll-hold", seconds(tuning.poll_hold)),
        ("reconnect-wait-min", seconds(tuning.reconnect.0)),
        ("reconnect-wait-max", seconds(tuning.reconnect.1)),
        ("refused-wait-min", seconds(tuning.refused.0)),
        ("refused-wait-max", seconds(tuning.refused.1)),
        ("websocket-again-after", seconds(tuning.upgrade_again)),
        ("frame-bytes-max", count(limits::FRAME_MAX)),
        ("line-bytes-max", count(limits::LINE_MAX)),
        ("unconfirmed-bytes-of-job-max", count(limits::UNACKED_MAX)),
        ("unconfirmed-bytes-max", count(limits::UNCONFIRMED_MAX)),
    ]
}

fn engine() -> Vec<(&'static str, String)> {
    let (times, tuning) = (EngineTimes::default(), Tuning::default());
    vec![
        ("engine-connect-timeout", seconds(times.connect)),
        ("engine-report-timeout", seconds(times.report)),
        ("engine-whole-answer-timeout", seconds(times.whole_answer)),
        ("engine-probe-interval", seconds(tuning.probe)),
        ("engine-failure-pause-min", seconds(tuning.breaker.0)),
        ("engine-failure-pause-max", seconds(tuning.breaker.1)),
        ("model-change-timeout", seconds(limits::MODEL_CHANGE)),
    ]
}

fn hub() -> Vec<(&'static str, String)> {
    let hub = ::status::Limits::default();
    vec![
        ("status-sockets-max", count(hub.sockets)),
        ("status-sockets-reserved", count(hub.kept)),
        ("status-message-bytes-max", count(limits::HUB_MESSAGE_MAX)),
        ("status-read-buffer-bytes", count(limits::HUB_READ_BUFFER)),
        ("status-handshake-timeout", seconds(hub.handshake)),
        ("status-identify-timeout", seconds(hub.identify)),
        ("status-stall-timeout", seconds(hub.stall)),
        ("status-answer-timeout", seconds(hub.answer)),
        ("status-update-interval", seconds(hub.pace)),
        ("status-messages-per-second", count(hub.per_second)),
        ("status-messages-burst", count(hub.burst)),
        ("status-messages-burst-v1", count(hub.burst_v1)),
        ("approval-timeout", seconds(hub.approval)),
    ]
}

fn count(value: impl Copy + ToString) -> String {
    value.to_string()
}

fn seconds(time: Duration) -> String {
    time.as_secs_f64().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_limits_that_no_option_sets_are_comments_with_their_numbers() {
        let text = lines();
        for line in [
            "# silence-timeout = 45 (fixed)",
            "# reconnect-wait-min = 0.5 (fixed)",
            "# engine-report-timeout = 5 (fixed)",
            "# status-sockets-max = 1024 (fixed)",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in {text}");
        }
        let read: toml::Table = toml::from_str(&text).unwrap();
        assert!(read.is_empty(), "{read}");
        let names: BTreeSet<_> = all().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), all().len(), "a name is there twice");
    }
}
