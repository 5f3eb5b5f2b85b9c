//! The main limits that no option sets, for `--print-config`.

use std::time::Duration;

use proto::limits;
use queue::{KEY_RETENTION, SESSIONS_MAX, machine::AGING_STEP};
use telemetry::fixed::{Limit, count, seconds};

use crate::{
    RelaySettings, api, batch, carrier,
    jwt::{self, TOKEN_MAX},
    listen::{HEAD_MAX, HEADERS_MAX},
    payload::{FAIR_RATE, LOWEST_RATE},
    pipeline::URI_MAX,
    rate, sending, session,
    users::{PASSWORD_MAX, PASSWORD_MIN},
    webhook,
    workers::{self, POLLERS_MAX, SOCKETS_MAX},
};

/// Returns the main limits that no option sets.
pub(crate) fn all() -> Vec<Limit> {
    let all = [
        requests(),
        websockets(),
        desktops(),
        queue(),
        files(),
        secrets(),
    ];
    all.into_iter().flatten().collect()
}

fn requests() -> Vec<Limit> {
    vec![
        ("head-bytes-max", count(HEAD_MAX)),
        ("headers-max", count(HEADERS_MAX)),
        ("uri-bytes-max", count(URI_MAX)),
        ("body-bytes-max", count(limits::BODY_MAX)),
        ("control-body-bytes-max", count(limits::CONTROL_BODY_MAX)),
        ("small-request-bytes-max", count(sending::SMALL)),
        ("json-values-max", count(limits::STRUCTURE_MAX)),
        ("body-bytes-per-second-min", count(LOWEST_RATE)),
        ("large-body-bytes-per-second-min", count(FAIR_RATE)),
        ("failure-wait-min", seconds(rate::FIRST_WAIT)),
        ("failure-wait-max", seconds(rate::LONGEST_WAIT)),
        ("polling-agents-per-key", count(POLLERS_MAX)),
        ("legacy-poll-hold", seconds(limits::LEGACY_POLL_HOLD)),
    ]
}

fn websockets() -> Vec<Limit> {
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

/// The limits of the tunnel service's desktops.
fn desktops() -> Vec<Limit> {
    let message = carrier::tunnel::MESSAGE_MAX;
    vec![
        ("tunnel-message-bytes-max", count(message)),
        (
            "tunnel-ping-interval",
            seconds(carrier::tunnel_session::PING),
        ),
        (
            "tunnel-silence-timeout",
            seconds(carrier::tunnel_session::DEAD),
        ),
        ("bridge-silence-timeout", seconds(api::bridge::ALIVE)),
        (
            "desktop-answer-timeout",
            seconds(carrier::desktop::ANSWER_WITHIN),
        ),
    ]
}

fn queue() -> Vec<Limit> {
    vec![
        ("jobs-per-agent-max", count(limits::HELD_MAX)),
        ("renewal-interval", seconds(limits::HEARTBEAT)),
        ("restart-grace", seconds(limits::RESTART_GRACE)),
        ("legacy-lease", seconds(limits::LEGACY_LEASE)),
        ("priority-step", seconds(AGING_STEP)),
        ("retry-wait-max", seconds(limits::RETRY_MAX)),
        ("deadline-max", seconds(limits::DEADLINE_MAX)),
        ("line-bytes-max", count(limits::LINE_MAX)),
        ("model-change-timeout", seconds(limits::MODEL_CHANGE)),
        ("models-per-agent-max", count(limits::MODELS_MAX)),
        ("reports-bytes-per-key-max", count(workers::OF_KEY_MAX)),
        ("reports-bytes-max", count(workers::OF_ALL_MAX)),
        ("lost-agents-remembered-for", seconds(workers::REMEMBERED)),
        (
            "idempotency-key-bytes-max",
            count(limits::IDEMPOTENCY_KEY_MAX),
        ),
        ("idempotency-keys-kept-for", seconds(KEY_RETENTION)),
    ]
}

/// The limits of files, batches and webhooks.
fn files() -> Vec<Limit> {
    vec![
        ("files-per-account", count(api::files::FILES_MAX)),
        ("files-bytes-per-account", count(api::files::BYTES_MAX)),
        ("files-kept-for", seconds(batch::FILE_KEPT)),
        ("batch-requests-max", count(batch::LINES_MAX)),
        ("batch-window", seconds(batch::WINDOW)),
        ("unfinished-batches-per-account", count(batch::BATCHES_MAX)),
        ("webhook-timeout", seconds(webhook::PATIENCE)),
    ]
}

fn secrets() -> Vec<Limit> {
    vec![
        ("access-token-life", seconds(session::ACCESS_LIFE)),
        ("refresh-token-life", seconds(session::RENEW_LIFE)),
        ("token-leeway", count(session::LEEWAY)),
        ("sessions-per-user", count(SESSIONS_MAX)),
        ("query-access-token-life", seconds(jwt::ACCESS_LIFE)),
        ("query-refresh-token-life", seconds(jwt::REFRESH_LIFE)),
        ("query-token-leeway", count(jwt::LEEWAY)),
        ("token-bytes-max", count(TOKEN_MAX)),
        ("password-characters-min", count(PASSWORD_MIN)),
        ("password-bytes-max", count(PASSWORD_MAX)),
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
            "# head-bytes-max = 16384 (fixed)",
            "# large-body-bytes-per-second-min = 65536 (fixed)",
            "# silence-timeout = 45 (fixed)",
            "# unpaid-messages-per-second = 100 (fixed)",
            "# tunnel-message-bytes-max = 16777216 (fixed)",
            "# tunnel-ping-interval = 30 (fixed)",
            "# tunnel-silence-timeout = 90 (fixed)",
            "# bridge-silence-timeout = 90 (fixed)",
            "# desktop-answer-timeout = 1800 (fixed)",
            "# priority-step = 60 (fixed)",
            "# model-change-timeout = 21600 (fixed)",
            "# models-per-agent-max = 4096 (fixed)",
            "# idempotency-keys-kept-for = 172800 (fixed)",
            "# reports-bytes-per-key-max = 67108864 (fixed)",
            "# batch-requests-max = 10000 (fixed)",
            "# unfinished-batches-per-account = 8 (fixed)",
            "# webhook-timeout = 10 (fixed)",
            "# access-token-life = 900 (fixed)",
            "# password-characters-min = 8 (fixed)",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in {text}");
        }
        let read: toml::Table = toml::from_str(&text).unwrap();
        assert!(read.is_empty(), "{read}");
        let names: BTreeSet<_> = all().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), all().len(), "a name is there twice");
    }
}
