//! The limits that no option sets, for `--print-config`.

use std::{fmt::Write as _, time::Duration};

use proto::limits;
use queue::{SESSIONS_MAX, machine::AGING_STEP};

use crate::{
    RelaySettings, carrier,
    jwt::{self, TOKEN_MAX},
    listen::{HEAD_MAX, HEADERS_MAX},
    payload::{FAIR_RATE, LOWEST_RATE},
    pipeline::URI_MAX,
    rate, session,
    users::{PASSWORD_MAX, PASSWORD_MIN},
    workers::{POLLERS_MAX, SOCKETS_MAX},
};

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
    let all = [requests(), websockets(), queue(), secrets()];
    all.into_iter().flatten().collect()
}

fn requests() -> Vec<(&'static str, String)> {
    vec![
        ("head-bytes-max", count(HEAD_MAX)),
        ("headers-max", count(HEADERS_MAX)),
        ("uri-bytes-max", count(URI_MAX)),
        ("body-bytes-max", count(limits::BODY_MAX)),
        ("control-body-bytes-max", count(limits::CONTROL_BODY_MAX)),
        ("json-values-max", count(limits::STRUCTURE_MAX)),
        ("body-bytes-per-second-min", count(LOWEST_RATE)),
        ("large-body-bytes-per-second-min", count(FAIR_RATE)),
        ("failure-wait-min", seconds(rate::FIRST_WAIT)),
        ("failure-wait-max", seconds(rate::LONGEST_WAIT)),
        ("polling-agents-per-key", count(POLLERS_MAX)),
        ("legacy-poll-hold", seconds(limits::LEGACY_POLL_HOLD)),
    ]
}

fn websockets() -> Vec<(&'static str, String)> {
    let settings = RelaySettings::default();
    let buffers = carrier::socket::config();
    let rate = Duration::from_secs(1).as_micros() / settings.unpaid_every.as_micros();
    vec![
        ("websockets-per-agent", count(SOCKETS_MAX)),
        ("frame-bytes-max", count(limits::FRAME_MAX)),
        ("read-buffer-bytes", count(buffers.read_buffer_size)),
        ("write-buffer-bytes", count(buffers.write_buffer_size)),
        (
            "write-buffer-bytes-max",
            count(buffers.max_write_buffer_size),
        ),
        ("hello-timeout", seconds(settings.hello_patience)),
        ("ping-interval", seconds(limits::CARRIER_PING)),
        ("silence-timeout", seconds(settings.carrier_patience)),
        ("stall-timeout", seconds(carrier::STALLED)),
        ("unpaid-messages-per-second", count(rate)),
        ("unpaid-messages-burst", count(settings.unpaid_burst)),
    ]
}

fn queue() -> Vec<(&'static str, String)> {
    vec![
        ("jobs-per-agent-max", count(limits::HELD_MAX)),
        ("renewal-interval", seconds(limits::HEARTBEAT)),
        ("restart-grace", seconds(limits::RESTART_GRACE)),
        ("legacy-lease", seconds(limits::LEGACY_LEASE)),
        ("priority-step", seconds(AGING_STEP)),
        ("retry-wait-max", seconds(limits::RETRY_MAX)),
        ("deadline-max", seconds(limits::DEADLINE_MAX)),
        ("line-bytes-max", count(limits::LINE_MAX)),
        (
            "idempotency-key-bytes-max",
            count(limits::IDEMPOTENCY_KEY_MAX),
        ),
    ]
}

fn secrets() -> Vec<(&'static str, String)> {
    vec![
        ("access-token-life", seconds(session::ACCESS_LIFE)),
        ("refresh-token-life", seconds(session::RENEW_LIFE)),
        ("token-leeway", count(session::LEEWAY)),
        ("sessions-per-user", count(SESSIONS_MAX)),
        ("query-access-token-life", seconds(jwt::ACCESS_LIFE)),
        ("query-refresh-token-life", seconds(jwt::REFRESH_LIFE)),
        ("query-token-leeway", count(jwt::LEEWAY)),
        ("token-bytes-max", count(TOKEN_MAX)),
        ("password-bytes-min", count(PASSWORD_MIN)),
        ("password-bytes-max", count(PASSWORD_MAX)),
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
            "# head-bytes-max = 16384 (fixed)",
            "# large-body-bytes-per-second-min = 65536 (fixed)",
            "# silence-timeout = 45 (fixed)",
            "# unpaid-messages-per-second = 100 (fixed)",
            "# priority-step = 60 (fixed)",
            "# access-token-life = 900 (fixed)",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in {text}");
        }
        let read: toml::Table = toml::from_str(&text).unwrap();
        assert!(read.is_empty(), "{read}");
        let names: BTreeSet<_> = all().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), all().len(), "a name is there twice");
    }
}
