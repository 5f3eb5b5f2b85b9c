//! Finds out whether a hub that sends only changes is still there.

use tokio::time::{Duration, Instant};

/// The silence of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    /// Time without a message after which the hub is pinged.
    pub(super) quiet: Duration,
    /// Time without an answer to the ping after which the status is stale.
    unanswered: Duration,
    /// Time of the ping that was not answered yet.
    pinged: Option<Instant>,
}

/// What is to be done when a silence is checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Nothing: a message arrived meanwhile.
    Early,
    /// The ping was answered, so the status is current.
    Answered,
    /// The hub is to be pinged. The status is stale if the last ping was not answered.
    Ping { is_stale: bool },
}

impl Silence {
    pub(super) const fn new(quiet: Duration, unanswered: Duration) -> Self {
        Self {
            quiet,
            unanswered,
            pinged: None,
        }
    }

    /// Returns when to check; `heard` is the time of the last message.
    pub(super) fn due(&self, heard: Instant) -> Instant {
        let of_ping = |at| at + self.unanswered;
        self.pinged.map_or(heard + self.quiet, of_ping)
    }

    pub(super) fn check(&mut self, heard: Instant, now: Instant) -> Check {
        match self.pinged {
            Some(at) if heard >= at => {
                self.pinged = None;
                Check::Answered
            }
            None if heard + self.quiet > now => Check::Early,
            unanswered => {
                self.pinged = Some(now);
                Check::Ping {
                    is_stale: unanswered.is_some(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(30);
    const UNANSWERED: Duration = Duration::from_secs(15);

    #[test]
    fn a_hub_is_pinged_after_a_silence_and_not_before() {
        let mut silence = Silence::new(QUIET, UNANSWERED);
        let heard = Instant::now();
        assert_eq!(silence.due(heard), heard + QUIET);
        let now = heard + QUIET;
        let later = heard + Duration::from_secs(1);
        assert_eq!(silence.check(later, now), Check::Early);
        let ping = Check::Ping { is_stale: false };
        assert_eq!(silence.check(heard, now), ping);
    }

    #[test]
    fn the_answer_to_a_ping_is_the_end_of_the_silence() {
        let mut silence = Silence::new(QUIET, UNANSWERED);
        let heard = Instant::now();
        let pinged = heard + QUIET;
        silence.check(heard, pinged);
        assert_eq!(silence.due(heard), pinged + UNANSWERED);
        let due = pinged + UNANSWERED;
        assert_eq!(silence.check(pinged, due), Check::Answered);
        assert_eq!(silence.due(pinged), pinged + QUIET);
    }

    #[test]
    fn without_an_answer_the_status_is_stale_and_the_hub_is_pinged_again() {
        let mut silence = Silence::new(QUIET, UNANSWERED);
        let heard = Instant::now();
        let mut now = heard + QUIET;
        silence.check(heard, now);
        for _ in 0..3 {
            now += UNANSWERED;
            assert_eq!(silence.due(heard), now);
            assert_eq!(silence.check(heard, now), Check::Ping { is_stale: true });
        }
    }
}
