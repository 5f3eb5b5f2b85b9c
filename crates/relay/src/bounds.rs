//! Timeouts of connections and memory budgets of requests and answers, as options of `hearth
//! relay`.

use std::time::Duration;

use clap::value_parser;
use proto::limits;

use crate::{RelaySettings, queue_limits::at_least_one};

const MIB: usize = 1024 * 1024;
/// Longest timeout, in seconds.
const WAIT_MAX: u64 = 3_600;
/// Bounds of the time that a poll is held, in seconds: agents take a shorter one for an answer that
/// was not held, and never ask for more.
const POLL_HOLD_MIN: u64 = 2;
const POLL_HOLD_MAX: u64 = limits::POLL_HOLD.as_secs();
/// Longest interval between key checks: connections of a revoked key must end within 5 s.
const KEY_CHECK_MAX: u64 = 4;

/// Limits on clients. A client that exceeds one is disconnected or refused.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct BoundsArgs {
    /// Seconds that the head of a request may take to arrive.
    #[arg(
        long,
        env = "HEARTH_HEAD_TIMEOUT",
        value_parser = value_parser!(u64).range(1..=WAIT_MAX),
        default_value_t = 10,
        value_name = "SECONDS"
    )]
    pub head_timeout: u64,
    /// Seconds that a connection may be idle between two requests.
    #[arg(
        long,
        env = "HEARTH_IDLE_TIMEOUT",
        value_parser = value_parser!(u64).range(1..=WAIT_MAX),
        default_value_t = 75,
        value_name = "SECONDS"
    )]
    pub idle_timeout: u64,
    /// Seconds until the response to a request must begin, not counting the wait for an agent or
    /// for the request body.
    #[arg(
        long,
        env = "HEARTH_WORK_TIMEOUT",
        value_parser = value_parser!(u64).range(1..=WAIT_MAX),
        default_value_t = 30,
        value_name = "SECONDS"
    )]
    pub work_timeout: u64,
    /// Seconds that a request body may stall, or stay under 1 KiB/s. The whole body may take six
    /// times as long, plus 1 s per 64 KiB.
    #[arg(
        long,
        env = "HEARTH_BODY_TIMEOUT",
        value_parser = value_parser!(u64).range(1..=WAIT_MAX),
        default_value_t = 5,
        value_name = "SECONDS"
    )]
    pub body_timeout: u64,
    /// Seconds after which a client that reads nothing of what is sent to it is disconnected.
    #[arg(
        long,
        env = "HEARTH_WRITE_TIMEOUT",
        value_parser = value_parser!(u64).range(1..=WAIT_MAX),
        default_value_t = 10,
        value_name = "SECONDS"
    )]
    pub write_timeout: u64,
    /// Maximum number of seconds for which a poll of an agent without a WebSocket is held. Proxies
    /// that end requests sooner need less.
    #[arg(
        long,
        env = "HEARTH_POLL_HOLD",
        value_parser = value_parser!(u64).range(POLL_HOLD_MIN..=POLL_HOLD_MAX),
        default_value_t = POLL_HOLD_MAX,
        value_name = "SECONDS"
    )]
    pub poll_hold: u64,
    /// Seconds that a TLS handshake may take.
    #[arg(
        long,
        env = "HEARTH_TLS_TIMEOUT",
        value_parser = value_parser!(u64).range(1..=WAIT_MAX),
        default_value_t = 10,
        value_name = "SECONDS"
    )]
    pub tls_timeout: u64,
    /// Seconds between checks that the key of an open stream or socket is still valid; another
    /// process may have revoked it.
    #[arg(
        long,
        env = "HEARTH_KEY_CHECK",
        value_parser = value_parser!(u64).range(1..=KEY_CHECK_MAX),
        default_value_t = KEY_CHECK_MAX,
        value_name = "SECONDS"
    )]
    pub key_check: u64,
    /// MiB of large request bodies that may be arriving at once, over all clients; one key gets at
    /// most a quarter, or a single larger body.
    #[arg(
        long,
        env = "HEARTH_ARRIVING_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = 512,
        value_name = "MIB"
    )]
    pub arriving_mib_max: usize,
    /// MiB of large answers and lists that may be buffered whole at once, over all clients; one key
    /// gets at most a quarter, or a single larger answer.
    #[arg(
        long,
        env = "HEARTH_GATHERED_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = 512,
        value_name = "MIB"
    )]
    pub gathered_mib_max: usize,
    /// MiB of requests that agents have not read yet, over all agents; while it is used up, or a
    /// quarter of it by agents with one key, no further large request is given to them.
    #[arg(
        long,
        env = "HEARTH_SENDING_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = 256,
        value_name = "MIB"
    )]
    pub sending_mib_max: usize,
    /// Overload refusals sent per second; more are delayed by up to 1 s.
    #[arg(
        long,
        env = "HEARTH_REFUSALS_PER_SECOND",
        value_parser = value_parser!(u32).range(1..=1_000_000),
        default_value_t = 1_000,
        value_name = "N"
    )]
    pub refusals_per_second: u32,
}

impl BoundsArgs {
    /// Returns `settings` with these limits.
    pub(crate) fn bound(self, settings: RelaySettings) -> RelaySettings {
        let second = Duration::from_secs(1);
        RelaySettings {
            head_patience: Duration::from_secs(self.head_timeout),
            idle_patience: Duration::from_secs(self.idle_timeout),
            work_patience: Duration::from_secs(self.work_timeout),
            body_patience: Duration::from_secs(self.body_timeout),
            write_patience: Duration::from_secs(self.write_timeout),
            poll_hold: Duration::from_secs(self.poll_hold),
            tls_patience: Duration::from_secs(self.tls_timeout),
            key_check: Duration::from_secs(self.key_check),
            arriving_max: self.arriving_mib_max * MIB,
            gathered_max: self.gathered_mib_max * MIB,
            sending_max: self.sending_mib_max * MIB,
            refusals_at_once: self.refusals_per_second,
            refusal_every: second / self.refusals_per_second,
            ..settings
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        bounds: BoundsArgs,
    }

    fn told(settings: &RelaySettings) -> [u128; 13] {
        [
            settings.head_patience.as_millis(),
            settings.idle_patience.as_millis(),
            settings.work_patience.as_millis(),
            settings.body_patience.as_millis(),
            settings.write_patience.as_millis(),
            settings.poll_hold.as_millis(),
            settings.tls_patience.as_millis(),
            settings.key_check.as_millis(),
            settings.arriving_max as u128,
            settings.gathered_max as u128,
            settings.sending_max as u128,
            settings.refusals_at_once.into(),
            settings.refusal_every.as_micros(),
        ]
    }

    fn with(options: &[&str]) -> RelaySettings {
        let program = Program::try_parse_from([&["relay"], options].concat()).unwrap();
        program.bounds.bound(RelaySettings::default())
    }

    #[test]
    fn without_options_every_bound_is_the_usual_one() {
        assert_eq!(told(&with(&[])), told(&RelaySettings::default()));
    }

    #[test]
    fn every_bound_has_an_option() {
        let options = [
            "--head-timeout=11",
            "--idle-timeout=12",
            "--work-timeout=31",
            "--body-timeout=13",
            "--write-timeout=14",
            "--poll-hold=16",
            "--tls-timeout=15",
            "--key-check=3",
            "--arriving-mib-max=17",
            "--gathered-mib-max=18",
            "--sending-mib-max=19",
            "--refusals-per-second=2000",
        ];
        let mib = MIB as u128;
        assert_eq!(
            told(&with(&options)),
            [
                11_000,
                12_000,
                31_000,
                13_000,
                14_000,
                16_000,
                15_000,
                3_000,
                17 * mib,
                18 * mib,
                19 * mib,
                2_000,
                500
            ]
        );
        for wrong in [
            "--key-check=5",
            "--poll-hold=1",
            "--poll-hold=26",
            "--head-timeout=0",
            "--refusals-per-second=0",
        ] {
            assert!(
                Program::try_parse_from(["relay", wrong]).is_err(),
                "{wrong}"
            );
        }
    }
}
