//! Rate limits, and the limit on concurrent requests.
//!
//! - Requests per key: a token bucket (`--key-rate`). Requests of workers to their carrier are
//!   exempt: slots bound them.
//! - Refusals because of overload or a reached limit, of all callers together: paced by delaying
//!   the response.
//! - Invalid keys per address (IPv6: per /64): after 5 a minute answered 429 instead of 401. Valid
//!   keys are unaffected, so that clients behind one address do not lock each other out; keys are
//!   too long to be guessed.
//! - Failed logins per address, and per user name at four times the rate: further passwords are not
//!   checked for a while. Failures from addresses where that user has logged in before do not count
//!   against the name, so that an attacker cannot lock the owner out. Invalid keys and successful
//!   logins do not count.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use proto::{ErrorCode, Timestamp};
use queue::{KeyId, UserId};

use crate::{
    Relay, RelaySettings,
    auth::Denied,
    error::ApiError,
    jwt,
    peer::{Peer, house},
    rate::{Failures, Pace, Recent, Taken},
};

/// Maximum number of keys, of addresses and of names that are remembered.
const REMEMBERED: usize = 16 * 1024;
const MINUTE: Duration = Duration::from_secs(60);
/// Factor of the limit for a name over that for an address: users of one name may mistype it from
/// several addresses.
const NAME_FACTOR: u32 = 4;

/// Rate limits; see the module.
#[derive(Debug)]
pub(crate) struct Guard {
    key_pace: Option<Pace>,
    house_pace: Option<Pace>,
    name_pace: Option<Pace>,
    refusal_pace: Option<Pace>,
    refusals: Mutex<Taken>,
    keys: Mutex<Recent<KeyId, Taken>>,
    /// Addresses that showed invalid keys.
    houses: Mutex<Recent<IpAddr, Failures>>,
    /// Addresses and names with failed logins.
    logins: Mutex<Recent<IpAddr, Failures>>,
    names: Mutex<Recent<String, Failures>>,
    /// Pairs of a name and an address from which that user has logged in.
    at_home: Mutex<Recent<(String, IpAddr), ()>>,
}

impl Guard {
    pub(crate) fn new(settings: &RelaySettings) -> Self {
        let failures = settings.failures_per_minute;
        let by_name = failures.saturating_mul(NAME_FACTOR);
        let second = Duration::from_secs(1);
        Self {
            key_pace: Pace::new(settings.key_rate, second, settings.key_burst),
            house_pace: Pace::new(failures, MINUTE, failures),
            name_pace: Pace::new(by_name, MINUTE, by_name),
            refusal_pace: Pace::new(1, settings.refusal_every, settings.refusals_at_once),
            refusals: Mutex::default(),
            keys: Mutex::new(Recent::new(REMEMBERED)),
            houses: Mutex::new(Recent::new(REMEMBERED)),
            logins: Mutex::new(Recent::new(REMEMBERED)),
            names: Mutex::new(Recent::new(REMEMBERED)),
            at_home: Mutex::new(Recent::new(REMEMBERED)),
        }
    }

    /// Counts one request with this key, or refuses it if the rate is exceeded.
    pub(crate) fn pace(&self, key: &KeyId, now: Timestamp) -> Result<(), ApiError> {
        let Some(pace) = self.key_pace else {
            return Ok(());
        };
        let taken = pace.take(lock(&self.keys).of(key.clone()), now);
        taken.map_err(|wait| slower(wait, "the key's requests come too fast; slow down"))
    }

    /// Counts one request of a user that is made without a key, such as renewing a token.
    pub(crate) fn pace_user(&self, user: UserId, now: Timestamp) -> Result<(), ApiError> {
        self.pace(&of_user(user), now)
    }

    /// Returns how long to delay a refusal because of overload or a reached limit, so that clients
    /// that retry in a tight loop do not crowd out the rest.
    pub(crate) fn hold(&self, code: ErrorCode, now: Timestamp) -> Duration {
        let is_for_want_of_room = matches!(
            code,
            ErrorCode::Busy
                | ErrorCode::QueueFull
                | ErrorCode::AccountFull
                | ErrorCode::DiskFull
                | ErrorCode::RateLimited
        );
        let pace = self.refusal_pace.filter(|_| is_for_want_of_room);
        pace.map_or(Duration::ZERO, |pace| {
            pace.take_in_turn(&mut lock(&self.refusals), now)
        })
    }

    /// Counts an invalid key, and returns the refusal to send: `denied`, or 429 after too many.
    pub(crate) fn denied(&self, peer: Peer, denied: Denied, now: Timestamp) -> Denied {
        // A key that was valid once is not a guess; its owner must learn why it is refused now.
        let is_guess = matches!(
            denied,
            Denied::Key
                | Denied::Token(jwt::Refused::Invalid | jwt::Refused::Kind)
                | Denied::Session(jwt::Refused::Invalid | jwt::Refused::Kind)
        );
        let Some(pace) = self.house_pace.filter(|_| is_guess) else {
            return denied;
        };
        let failed = lock(&self.houses)
            .of(house(peer.address))
            .attempt(pace, now);
        match failed {
            Ok(()) => denied,
            Err(wait) => Denied::Failed(slower(
                wait,
                "the key or token is not good, and too many that were not came from your address",
            )),
        }
    }

    /// Checks whether a login may be tried now.
    pub(crate) fn try_login(
        &self,
        peer: Peer,
        name: &str,
        now: Timestamp,
    ) -> Result<Trial<'_>, ApiError> {
        const WHY: &str = "too many logins failed; wait before the next";
        let from = house(peer.address);
        if let Some(pace) = self.house_pace {
            let allowed = lock(&self.logins).of(from).may(pace, now);
            allowed.map_err(|wait| slower(wait, WHY))?;
        }
        let is_at_home = lock(&self.at_home).knows(&(name.to_owned(), from));
        if let Some(pace) = self.name_pace.filter(|_| !is_at_home) {
            let allowed = lock(&self.names).of(name.to_owned()).may(pace, now);
            allowed.map_err(|wait| slower(wait, WHY))?;
        }
        Ok(Trial {
            guard: self,
            name: name.to_owned(),
            from,
            at: now,
            has_failed: true,
        })
    }

    fn failed(&self, name: &str, from: IpAddr, at: Timestamp) {
        // The limit is reported at the next try.
        if let Some(pace) = self.house_pace {
            let _ = lock(&self.logins).of(from).attempt(pace, at);
        }
        let is_at_home = lock(&self.at_home).knows(&(name.to_owned(), from));
        if let Some(pace) = self.name_pace.filter(|_| !is_at_home) {
            let _ = lock(&self.names).of(name.to_owned()).attempt(pace, at);
        }
    }
}

/// A login that is in progress. Dropping it counts as a failure, so that a client cannot avoid the
/// count by disconnecting.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    guard: &'a Guard,
    name: String,
    from: IpAddr,
    at: Timestamp,
    has_failed: bool,
}

impl Trial<'_> {
    /// Records that the password was correct.
    pub(crate) fn succeeded(mut self) {
        self.has_failed = false;
        let name = std::mem::take(&mut self.name);
        lock(&self.guard.at_home).of((name, self.from));
    }

    /// Discards the attempt: the password was not checked.
    pub(crate) fn was_not_made(mut self) {
        self.has_failed = false;
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if self.has_failed {
            self.guard.failed(&self.name, self.from, self.at);
        }
    }
}

/// Returns the id that stands for a user wherever a key id is needed. No key has such an id.
pub(crate) fn of_user(user: UserId) -> KeyId {
    format!("user-{user}")
}

fn slower(wait: Duration, why: &str) -> ApiError {
    ApiError::new(ErrorCode::RateLimited, why).after(wait)
}

fn lock<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Limit on concurrent requests, not counting those that wait for a worker.
///
/// A burst may use all of it. If a burst lasts longer than [`BURST`], requests arrive faster than
/// they are processed, and each admitted one would wait for all before it. Then only a part of the
/// limit is admitted, which keeps the latency low.
#[derive(Debug)]
pub(crate) struct Gate {
    inside: AtomicUsize,
    most: usize,
    /// Time when a request last found few others; milliseconds since 1970.
    calm_at: AtomicI64,
}

/// Time for which the whole limit may be used before only a part is admitted.
const BURST: Duration = Duration::from_millis(100);
/// Divisor of the limit under sustained load.
const STANDING: usize = 4;
/// Divisor of the limit: with at most this part in use, the load counts as low.
const CALM: usize = 8;

impl Gate {
    pub(crate) const fn new(most: usize) -> Self {
        Self {
            inside: AtomicUsize::new(0),
            most,
            calm_at: AtomicI64::new(0),
        }
    }

    /// Whether a request is admitted at `now`, with `inside` others in progress.
    fn admits(&self, inside: usize, now: Timestamp) -> bool {
        let calm_at = Timestamp(self.calm_at.load(Ordering::Relaxed));
        // After the clock was set back, the length of the burst is unknown.
        if inside <= self.most / CALM || now < calm_at {
            self.calm_at.store(now.0, Ordering::Relaxed);
        } else if now.since(calm_at) > BURST {
            return inside < self.most.div_ceil(STANDING);
        }
        inside < self.most
    }
}

/// A request's slot in the limit; released at the latest when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct AtWork(Arc<Place>);

#[derive(Debug)]
struct Place {
    gate: Arc<Gate>,
    is_inside: AtomicBool,
    /// Start of the current work; milliseconds since 1970.
    began: AtomicI64,
}

impl AtWork {
    pub(crate) fn new(gate: &Arc<Gate>) -> Self {
        Self(Arc::new(Place {
            gate: gate.clone(),
            is_inside: AtomicBool::new(false),
            began: AtomicI64::new(0),
        }))
    }

    /// Takes the slot; `false` if the limit is reached.
    pub(crate) fn begins(&self, now: Timestamp) -> bool {
        if self.0.is_inside.swap(true, Ordering::Relaxed) {
            return true;
        }
        self.0.began.store(now.0, Ordering::Relaxed);
        let gate = &self.0.gate;
        if gate.admits(gate.inside.fetch_add(1, Ordering::Relaxed), now) {
            return true;
        }
        self.rests();
        false
    }

    /// Whether it has held the slot for at least `patience`.
    pub(crate) fn is_overdue(&self, now: Timestamp, patience: Duration) -> bool {
        let began = Timestamp(self.0.began.load(Ordering::Relaxed));
        self.0.is_inside.load(Ordering::Relaxed) && now.since(began) >= patience
    }

    /// Releases the slot while the request waits.
    pub(crate) fn rests(&self) {
        if self.0.is_inside.swap(false, Ordering::Relaxed) {
            self.0.gate.inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if *self.is_inside.get_mut() {
            self.gate.inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Relay {
    /// Returns the error for an overloaded relay, with a random `Retry-After` so that clients do
    /// not return together.
    pub(crate) fn busy(&self) -> ApiError {
        let seconds = self.world.random().map_or(3, |bytes| 1 + bytes[0] % 5);
        let message = "the relay has too much to do at once; try again in a moment";
        ApiError::new(ErrorCode::Busy, message).after(Duration::from_secs(seconds.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn guard() -> Guard {
        Guard::new(&RelaySettings::default())
    }

    fn from(address: &str) -> Peer {
        Peer {
            address: address.parse().unwrap(),
            is_secure: false,
        }
    }

    #[test]
    fn an_address_that_fails_too_often_is_not_told_why_and_others_are() {
        let guard = guard();
        let failed = |address: &str| guard.denied(from(address), Denied::Key, NOW);
        for _ in 0..5 {
            assert!(matches!(failed("2001:db8::1"), Denied::Key));
        }
        // Another address of the same network.
        for address in ["2001:db8::1", "2001:db8::2:3"] {
            let Denied::Failed(error) = failed(address) else {
                panic!("told all the same");
            };
            assert_eq!(
                (error.code, error.retry_after()),
                (ErrorCode::RateLimited, Some(15))
            );
        }
        assert!(matches!(failed("2001:db8:0:1::1"), Denied::Key));
        // A request without a key is not a guess.
        let nothing = guard.denied(from("2001:db8::1"), Denied::Nothing, NOW);
        assert!(matches!(nothing, Denied::Nothing));
    }

    #[test]
    fn a_name_tried_from_everywhere_is_closed_to_all_but_those_at_home() {
        let guard = guard();
        let home = from("203.0.113.9");
        guard.try_login(home, "jan", NOW).unwrap().succeeded();
        let tried = |n: u32| {
            let address = format!("198.51.{}.{}", n / 250, n % 250);
            guard.try_login(from(&address), "jan", NOW).is_ok()
        };
        assert_eq!((0..1000).filter(|n| tried(*n)).count(), 20);
        assert!(guard.try_login(home, "jan", NOW).is_ok(), "its owner");
        let other = guard.try_login(from("198.51.0.9"), "ola", NOW);
        assert!(other.is_ok(), "another name");
    }

    #[test]
    fn one_address_keeps_nobody_out_elsewhere() {
        let guard = guard();
        let here = from("198.51.100.7");
        let tried = (0..1000).filter(|_| guard.try_login(here, "jan", NOW).is_ok());
        assert_eq!(tried.count(), 5);
        let elsewhere = guard.try_login(from("203.0.113.9"), "jan", NOW);
        assert!(elsewhere.is_ok());
    }

    #[test]
    fn good_passwords_bad_keys_and_what_was_not_looked_at_keep_nobody_from_logging_in() {
        let guard = guard();
        let here = from("198.51.100.7");
        for _ in 0..100 {
            guard.denied(here, Denied::Key, NOW);
        }
        let at_once: Vec<_> = (0..40)
            .map(|n| guard.try_login(here, &format!("worker-{n}"), NOW).unwrap())
            .collect();
        at_once.into_iter().for_each(Trial::succeeded);
        for _ in 0..100 {
            guard.try_login(here, "jan", NOW).unwrap().was_not_made();
        }
        assert!(guard.try_login(here, "jan", NOW).is_ok());
    }

    #[test]
    fn who_failed_too_often_is_remembered_while_fifteen_thousand_others_come_and_not_for_ever() {
        let guard = guard();
        let failed = |address: &str| guard.denied(from(address), Denied::Key, NOW);
        let others = |from: u32, to: u32| {
            for n in from..to {
                failed(&std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string());
            }
        };
        for _ in 0..6 {
            failed("203.0.113.9");
        }
        others(0, 15_000);
        assert!(matches!(failed("203.0.113.9"), Denied::Failed(_)));
        others(15_000, 40_000);
        assert!(matches!(failed("203.0.113.9"), Denied::Key));
    }

    #[test]
    fn there_is_room_for_so_many_and_again_when_they_rest_or_leave() {
        let gate = Arc::new(Gate::new(2));
        let work = || AtWork::new(&gate);
        let (one, two, three) = (work(), work(), work());
        assert!(one.begins(NOW) && two.begins(NOW) && one.begins(NOW));
        assert!(!three.begins(NOW));
        one.rests();
        one.rests();
        assert!(three.begins(NOW) && !one.begins(NOW));
        drop((two.clone(), three));
        assert!(one.begins(NOW));
        drop((one, two));
        assert_eq!(gate.inside.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_is_at_work_for_too_long_is_overdue_and_who_waits_is_not() {
        let gate = Arc::new(Gate::new(2));
        let (one, patience) = (AtWork::new(&gate), Duration::from_secs(30));
        let later = NOW + patience;
        assert!(
            !one.is_overdue(later, patience),
            "its body is still to come"
        );
        assert!(one.begins(NOW));
        assert!(!one.is_overdue(NOW, patience) && one.is_overdue(later, patience));
        one.rests();
        assert!(!one.is_overdue(later, patience));
        assert!(one.begins(later));
        assert!(!one.is_overdue(later, patience));
    }

    #[test]
    fn a_burst_may_fill_the_gate_and_of_a_load_that_stands_a_quarter_is_let_in() {
        let gate = Arc::new(Gate::new(64));
        let come = |count: usize, now: Timestamp| {
            let came = std::iter::repeat_with(|| AtWork::new(&gate)).take(count);
            came.filter(|one| one.begins(now)).collect::<Vec<_>>()
        };
        // The load was low before, for any length of time.
        for at in [NOW, NOW + Duration::from_hours(1)] {
            let mut inside = come(100, at);
            assert_eq!(inside.len(), 64, "a burst");
            let later = at + BURST;
            inside.truncate(40);
            inside.extend(come(100, later));
            assert_eq!(inside.len(), 64, "a burst may take so long");
            let standing = later + Duration::from_millis(1);
            inside.truncate(15);
            inside.extend(come(100, standing));
            assert_eq!(inside.len(), 16, "more come than are done");
            inside.truncate(9);
            inside.extend(come(100, standing + Duration::from_hours(1)));
            assert_eq!(inside.len(), 16, "it stands as long as it does not drain");
            inside.truncate(8);
            inside.extend(come(100, standing + Duration::from_hours(2)));
            assert_eq!(inside.len(), 64, "it did");
        }
        // The system clock was set back.
        let _inside = come(40, NOW + Duration::from_hours(4));
        assert_eq!(come(100, NOW).len(), 24);
    }
}
