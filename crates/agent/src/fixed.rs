//! The main limits that no option sets, for `--print-config`.

use engine::{CHANGE_PAUSE, EngineTimes};
use proto::limits;
use telemetry::fixed::{Limit, count, seconds};
use worker::{DRAIN, Tuning};

/// Returns the main limits that no option sets.
pub(crate) fn all() -> Vec<Limit> {
    [relay(), engine(), hub()].into_iter().flatten().collect()
}

fn relay() -> Vec<Limit> {
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
        ("loads-and-changes-at-once-max", count(limits::URGENT_MAX)),
        ("models-max", count(limits::MODELS_MAX)),
        ("model-details-bytes-max", count(limits::SHOW_MAX)),
        ("details-bytes-max", count(limits::SHOWS_MAX)),
        ("loaded-models-max", count(limits::RUNNING_MAX)),
        ("stop-timeout", seconds(DRAIN)),
    ]
}

fn engine() -> Vec<Limit> {
    let (times, tuning) = (EngineTimes::default(), Tuning::default());
    vec![
        ("engine-connect-timeout", seconds(times.connect)),
        ("engine-report-timeout", seconds(times.report)),
        ("engine-whole-answer-timeout", seconds(times.whole_answer)),
        ("engine-probe-interval", seconds(tuning.probe)),
        ("engine-retry-wait-min", seconds(tuning.engine_retry.0)),
        ("engine-retry-wait-max", seconds(tuning.engine_retry.1)),
        ("engine-failure-pause-min", seconds(tuning.breaker.0)),
        ("engine-failure-pause-max", seconds(tuning.breaker.1)),
        ("model-change-timeout", seconds(limits::MODEL_CHANGE)),
        ("model-change-line-timeout", seconds(CHANGE_PAUSE)),
    ]
}

fn hub() -> Vec<Limit> {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use telemetry::fixed::comments;

    use super::*;

    #[test]
    fn the_limits_that_no_option_sets_are_comments_with_their_numbers() {
        let text = comments(all());
        for line in [
            "# silence-timeout = 45 (fixed)",
            "# reconnect-wait-min = 0.5 (fixed)",
            "# engine-report-timeout = 5 (fixed)",
            "# engine-retry-wait-max = 30 (fixed)",
            "# model-change-timeout = 21600 (fixed)",
            "# model-change-line-timeout = 1800 (fixed)",
            "# models-max = 4096 (fixed)",
            "# loaded-models-max = 64 (fixed)",
            "# loads-and-changes-at-once-max = 4 (fixed)",
            "# stop-timeout = 25 (fixed)",
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
