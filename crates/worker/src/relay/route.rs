//! The choice of the carrier, and the wait before each attempt.

use proto::status::CarrierKind;
use tokio::time::{Duration, Instant};

use crate::{Backoff, LinkEnd, Tuning};

/// Maximum wait that a relay may request.
const PATIENCE_MAX: Duration = Duration::from_secs(300);
/// Number of WebSockets in a row that may break before their first message until polls are tried.
const MISSES_MAX: u32 = 2;
/// Time after which a WebSocket is tried again if it broke while polls succeeded: the relay may
/// just have restarted. Doubles each time.
const UPGRADE_SOON: Duration = Duration::from_secs(10);

/// Decides which carrier is tried next, and after which wait.
#[derive(Debug)]
pub(crate) struct Route {
    lost: Backoff,
    refused: Backoff,
    upgrade_again: Duration,
    upgrade_soon: Duration,
    websocket_after: Option<Instant>,
    misses: u32,
    /// Polls get through, and a WebSocket is tried instead of them.
    is_trial: bool,
}

impl Route {
    pub(crate) const fn new(tuning: &Tuning) -> Self {
        Self {
            lost: Backoff::new(tuning.reconnect.0, tuning.reconnect.1),
            refused: Backoff::new(tuning.refused.0, tuning.refused.1),
            upgrade_again: tuning.upgrade_again,
            upgrade_soon: UPGRADE_SOON,
            websocket_after: None,
            misses: 0,
            is_trial: false,
        }
    }

    /// Whether this end only means that a WebSocket still does not get through while polls do: the
    /// link is not down, and polls continue at once.
    pub(crate) const fn is_failed_trial(&self, proven: bool, end: &LinkEnd) -> bool {
        self.is_trial && !proven && matches!(end, LinkEnd::Lost { reached: true, .. })
    }

    /// Returns when a WebSocket may be tried again, if it failed recently.
    pub(crate) const fn websocket_after(&self) -> Option<Instant> {
        self.websocket_after
    }

    pub(crate) fn carrier(&self, now: Instant) -> CarrierKind {
        if self.websocket_after.is_some_and(|after| now < after) {
            CarrierKind::LongPoll
        } else {
            CarrierKind::Websocket
        }
    }

    /// Records the end of a session and returns the wait before the next one. `proven` says whether
    /// the relay had sent its first message.
    pub(crate) fn ended(
        &mut self,
        carrier: CarrierKind,
        proven: bool,
        end: &LinkEnd,
        now: Instant,
        random: f64,
    ) -> Duration {
        if proven {
            self.lost.reset();
            self.refused.reset();
            self.misses = 0;
        }
        let is_failed_trial = self.is_failed_trial(proven, end);
        self.is_trial = matches!(end, LinkEnd::Upgrade);
        let by_websocket = carrier == CarrierKind::Websocket;
        // If neither carrier gets through, the relay is down, and either may work when it is back.
        let is_down = !by_websocket && !proven && matches!(end, LinkEnd::Lost { .. });
        if is_down || (by_websocket && proven) {
            self.websocket_after = None;
            self.upgrade_soon = UPGRADE_SOON;
        }
        match end {
            LinkEnd::Stopped => Duration::ZERO,
            LinkEnd::Woken => {
                self.lost.reset();
                Duration::ZERO
            }
            LinkEnd::Upgrade => {
                self.websocket_after = None;
                // Polls succeed: one failure leads back to them.
                self.misses = MISSES_MAX - 1;
                Duration::ZERO
            }
            LinkEnd::Blocked(_) if by_websocket => {
                self.leave_websocket(now, self.upgrade_again);
                Duration::ZERO
            }
            LinkEnd::Blocked(_) => self.lost.next(random),
            LinkEnd::Lost { reached, .. } => {
                if by_websocket && *reached && !proven {
                    self.misses += 1;
                    if self.misses >= MISSES_MAX {
                        let soon = self.upgrade_soon.min(self.upgrade_again);
                        self.upgrade_soon = soon * 2;
                        self.leave_websocket(now, soon);
                    }
                }
                if is_failed_trial {
                    Duration::ZERO
                } else {
                    self.lost.next(random)
                }
            }
            LinkEnd::Later { after, .. } => {
                let asked = after.unwrap_or_default().min(PATIENCE_MAX);
                asked + self.lost.next(random)
            }
            LinkEnd::Restarting { after } => {
                after.unwrap_or_default().min(PATIENCE_MAX) + self.lost.once(random)
            }
            LinkEnd::Unauthorized(_) | LinkEnd::NotTheRelay(_) => self.refused.next(random),
        }
    }

    fn leave_websocket(&mut self, now: Instant, for_: Duration) {
        self.misses = 0;
        self.websocket_after = Some(now + for_);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEBSOCKET: CarrierKind = CarrierKind::Websocket;
    const LONG_POLL: CarrierKind = CarrierKind::LongPoll;

    fn lost(reached: bool) -> LinkEnd {
        LinkEnd::Lost {
            reached,
            problem: "cut".into(),
        }
    }

    fn route() -> (Route, Instant) {
        (Route::new(&Tuning::default()), Instant::now())
    }

    #[test]
    fn a_refused_upgrade_falls_back_at_once_and_is_tried_again_later() {
        let (mut route, now) = route();
        let blocked = LinkEnd::Blocked("426".into());
        assert_eq!(route.carrier(now), WEBSOCKET);
        assert_eq!(
            route.ended(WEBSOCKET, false, &blocked, now, 0.5),
            Duration::ZERO
        );
        assert_eq!(route.carrier(now), LONG_POLL);
        assert_eq!(route.carrier(now + Duration::from_secs(300)), WEBSOCKET);
    }

    #[test]
    fn a_proxy_that_breaks_websockets_is_noticed_and_a_relay_that_is_down_is_not_taken_for_one() {
        let (mut route, now) = route();
        for _ in 0..5 {
            route.ended(WEBSOCKET, false, &lost(false), now, 0.5);
        }
        assert_eq!(route.carrier(now), WEBSOCKET);
        route.ended(WEBSOCKET, false, &lost(true), now, 0.5);
        assert_eq!(route.carrier(now), WEBSOCKET);
        route.ended(WEBSOCKET, false, &lost(true), now, 0.5);
        assert_eq!(route.carrier(now), LONG_POLL);
    }

    #[test]
    fn a_relay_that_neither_carrier_gets_to_is_tried_by_both_in_turn() {
        let (mut route, now) = route();
        for _ in 0..20 {
            for _ in 0..2 {
                assert_eq!(route.carrier(now), WEBSOCKET);
                route.ended(WEBSOCKET, false, &lost(true), now, 0.5);
            }
            assert_eq!(route.carrier(now), LONG_POLL);
            route.ended(LONG_POLL, false, &lost(true), now, 0.5);
        }
        // Polls succeed first: the WebSocket is tried again soon, and then less and less often.
        route.ended(WEBSOCKET, false, &lost(true), now, 0.5);
        let mut waits = Vec::new();
        for _ in 0..7 {
            let is_failed_trial = route.is_failed_trial(false, &lost(true));
            let wait = route.ended(WEBSOCKET, false, &lost(true), now, 0.5);
            assert_eq!(route.carrier(now), LONG_POLL);
            // The first is the second of two that were lost, with no poll before.
            let is_first = waits.is_empty();
            assert_eq!((is_failed_trial, wait.is_zero()), (!is_first, !is_first));
            assert!(
                !route.is_failed_trial(false, &lost(true)),
                "polls can be lost"
            );
            waits.push((route.websocket_after().unwrap() - now).as_secs());
            route.ended(LONG_POLL, true, &LinkEnd::Upgrade, now, 0.5);
            assert_eq!(route.carrier(now), WEBSOCKET);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_link_that_was_proven_starts_the_waits_anew() {
        let (mut route, now) = route();
        let waits: Vec<_> = (0..8)
            .map(|_| {
                route
                    .ended(WEBSOCKET, false, &lost(false), now, 1.0)
                    .as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(
            route
                .ended(WEBSOCKET, true, &lost(true), now, 1.0)
                .as_secs(),
            1
        );
    }

    #[test]
    fn a_relay_that_restarts_is_waited_for_shortly_however_often_it_says_so() {
        let (mut route, now) = route();
        let mut wait = |random| {
            let after = Some(Duration::from_secs(2));
            route.ended(
                WEBSOCKET,
                false,
                &LinkEnd::Restarting { after },
                now,
                random,
            )
        };
        for _ in 0..10 {
            assert_eq!(wait(0.0), Duration::from_millis(2_500));
            assert_eq!(wait(1.0), Duration::from_secs(3));
        }
        let first = route.ended(WEBSOCKET, false, &lost(false), now, 1.0);
        assert_eq!(first, Duration::from_secs(1), "no failure was counted");
    }

    #[test]
    fn a_refused_key_is_not_hammered_at() {
        let (mut route, now) = route();
        let refused = LinkEnd::Unauthorized("revoked".into());
        let waits: Vec<_> = (0..5)
            .map(|_| route.ended(WEBSOCKET, false, &refused, now, 0.0).as_secs())
            .collect();
        assert!(waits.iter().all(|wait| *wait >= 60), "{waits:?}");
    }

    #[test]
    fn the_patience_a_relay_asks_for_is_given_up_to_five_minutes() {
        let (mut route, now) = route();
        let mut wait = |secs| {
            let later = LinkEnd::Later {
                after: Some(Duration::from_secs(secs)),
                problem: "full".into(),
            };
            route.ended(WEBSOCKET, true, &later, now, 0.0)
        };
        assert_eq!(wait(7), Duration::from_millis(7_500));
        assert_eq!(wait(100_000), Duration::from_millis(300_500));
    }
}
