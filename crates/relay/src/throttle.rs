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
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use proto::{ErrorCode, Timestamp};
use queue::{KeyId, UserId};

use crate::{
    Relay, RelaySettings,
    auth::Denied,
    error::ApiError,
    jwt,
    peer::{Peer, client_prefix},
    rate::{Failures, RateLimit, RateState, RecentMap},
};

/// Maximum number of keys, of addresses and of names that are remembered.
const REMEMBERED: usize = 16 * 1024;
const MINUTE: Duration = Duration::from_secs(60);
/// Factor of the limit for a name over that for an address: users of one name may mistype it from
/// several addresses.
const NAME_FACTOR: u32 = 4;

/// Rate limits; see the module.
#[derive(Debug)]
pub(crate) struct RateLimits {
    key_limit: Option<RateLimit>,
    address_limit: Option<RateLimit>,
    name_limit: Option<RateLimit>,
    refusal_limit: Option<RateLimit>,
    refusals: Mutex<RateState>,
    keys: Mutex<RecentMap<KeyId, RateState>>,
    /// Addresses that showed invalid keys.
    bad_keys: Mutex<RecentMap<IpAddr, Failures>>,
    /// Addresses and names with failed logins.
    logins: Mutex<RecentMap<IpAddr, Failures>>,
    names: Mutex<RecentMap<String, Failures>>,
    /// Pairs of a name and an address from which that user has logged in.
    known_logins: Mutex<RecentMap<(String, IpAddr), ()>>,
}

impl RateLimits {
    pub(crate) fn new(settings: &RelaySettings) -> Self {
        let failures = settings.failures_per_minute;
        let by_name = failures.saturating_mul(NAME_FACTOR);
        let second = Duration::from_secs(1);
        Self {
            key_limit: RateLimit::new(settings.key_rate, second, settings.key_burst),
            address_limit: RateLimit::new(failures, MINUTE, failures),
            name_limit: RateLimit::new(by_name, MINUTE, by_name),
            refusal_limit: RateLimit::new(1, settings.refusal_every, settings.refusals_at_once),
            refusals: Mutex::default(),
            keys: Mutex::new(RecentMap::new(REMEMBERED)),
            bad_keys: Mutex::new(RecentMap::new(REMEMBERED)),
            logins: Mutex::new(RecentMap::new(REMEMBERED)),
            names: Mutex::new(RecentMap::new(REMEMBERED)),
            known_logins: Mutex::new(RecentMap::new(REMEMBERED)),
        }
    }

    /// Counts one request with this key, or refuses it if the rate is exceeded.
    pub(crate) fn take_request(&self, key: &KeyId, now: Timestamp) -> Result<(), ApiError> {
        let Some(limit) = self.key_limit else {
            return Ok(());
        };
        let state = limit.take(self.keys.lock().entry(key.clone()), now);
        state.map_err(|wait| {
            rate_limited(
                wait,
                "too many requests with this key; wait before sending the next one",
            )
        })
    }

    /// Counts one request of a user that is made without a key, such as renewing a token.
    pub(crate) fn take_user_request(&self, user: UserId, now: Timestamp) -> Result<(), ApiError> {
        self.take_request(&user_key_id(user), now)
    }

    /// Returns how long to delay a refusal because of overload or a reached limit, so that clients
    /// that retry in a tight loop do not crowd out the rest.
    pub(crate) fn refusal_delay(&self, code: ErrorCode, now: Timestamp) -> Duration {
        let is_for_want_of_room = matches!(
            code,
            ErrorCode::Busy
                | ErrorCode::QueueFull
                | ErrorCode::AccountFull
                | ErrorCode::DiskFull
                | ErrorCode::RateLimited
        );
        let limit = self.refusal_limit.filter(|_| is_for_want_of_room);
        limit.map_or(Duration::ZERO, |limit| {
            limit.reserve(&mut self.refusals.lock(), now)
        })
    }

    /// Counts an invalid key, and returns the refusal to send: `denied`, or 429 after too many.
    pub(crate) fn throttle_denied(&self, peer: Peer, denied: Denied, now: Timestamp) -> Denied {
        // A key that was valid once is not a guess; its owner must learn why it is refused now.
        let is_guess = matches!(
            denied,
            Denied::Key
                | Denied::Token(jwt::TokenError::Invalid | jwt::TokenError::Kind)
                | Denied::Session(jwt::TokenError::Invalid | jwt::TokenError::Kind)
        );
        let Some(limit) = self.address_limit.filter(|_| is_guess) else {
            return denied;
        };
        let failed = self
            .bad_keys
            .lock()
            .entry(client_prefix(peer.address))
            .attempt(limit, now);
        match failed {
            Ok(()) => denied,
            Err(wait) => Denied::Failed(rate_limited(
                wait,
                "the key or token is invalid, and too many invalid ones came from your address; \
                 correct it, and wait before the next try",
            )),
        }
    }

    /// Checks whether a login may be tried now.
    pub(crate) fn try_login(
        &self,
        peer: Peer,
        name: &str,
        now: Timestamp,
    ) -> Result<LoginAttempt<'_>, ApiError> {
        const WHY: &str = "too many failed logins; wait before the next try";
        let from = client_prefix(peer.address);
        if let Some(limit) = self.address_limit {
            let allowed = self.logins.lock().entry(from).check(limit, now);
            allowed.map_err(|wait| rate_limited(wait, WHY))?;
        }
        let is_known_login = self.known_logins.lock().contains(&(name.to_owned(), from));
        if let Some(limit) = self.name_limit.filter(|_| !is_known_login) {
            let allowed = self.names.lock().entry(name.to_owned()).check(limit, now);
            allowed.map_err(|wait| rate_limited(wait, WHY))?;
        }
        Ok(LoginAttempt {
            limits: self,
            name: name.to_owned(),
            from,
            at: now,
            has_failed: true,
        })
    }

    fn failed(&self, name: &str, from: IpAddr, at: Timestamp) {
        // The limit is reported at the next try.
        if let Some(limit) = self.address_limit {
            let _ = self.logins.lock().entry(from).attempt(limit, at);
        }
        let is_known_login = self.known_logins.lock().contains(&(name.to_owned(), from));
        if let Some(limit) = self.name_limit.filter(|_| !is_known_login) {
            let _ = self.names.lock().entry(name.to_owned()).attempt(limit, at);
        }
    }
}

/// A login that is in progress. Dropping it counts as a failure, so that a client cannot avoid the
/// count by disconnecting.
#[derive(Debug)]
pub(crate) struct LoginAttempt<'a> {
    limits: &'a RateLimits,
    name: String,
    from: IpAddr,
    at: Timestamp,
    has_failed: bool,
}

impl LoginAttempt<'_> {
    /// Records that the password was correct.
    pub(crate) fn succeeded(mut self) {
        self.has_failed = false;
        let name = std::mem::take(&mut self.name);
        self.limits.known_logins.lock().entry((name, self.from));
    }

    /// Discards the attempt: the password was not checked.
    pub(crate) fn not_checked(mut self) {
        self.has_failed = false;
    }
}

impl Drop for LoginAttempt<'_> {
    fn drop(&mut self) {
        if self.has_failed {
            self.limits.failed(&self.name, self.from, self.at);
        }
    }
}

/// Returns the id that stands for a user wherever a key id is needed. No key has such an id.
pub(crate) fn user_key_id(user: UserId) -> KeyId {
    format!("user-{user}")
}

fn rate_limited(wait: Duration, why: &str) -> ApiError {
    ApiError::new(ErrorCode::RateLimited, why).after(wait)
}

/// Limit on concurrent requests, not counting those that wait for a worker.
///
/// A burst may use all of it. If a burst lasts longer than [`BURST`], requests arrive faster than
/// they are processed, and each admitted one would wait for all before it. Then only a part of the
/// limit is admitted, which keeps the latency low.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimit {
    inside: AtomicUsize,
    most: usize,
    /// Time when a request last found few others; milliseconds since 1970.
    calm_at: AtomicI64,
}

/// Time for which the whole limit may be used before only a part is admitted.
const BURST: Duration = Duration::from_millis(100);
/// Divisor of the limit under sustained load.
const SUSTAINED_DIVISOR: usize = 4;
/// Divisor of the limit: with at most this part in use, the load counts as low.
const CALM_DIVISOR: usize = 8;

impl ConcurrencyLimit {
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
        if inside <= self.most / CALM_DIVISOR || now < calm_at {
            self.calm_at.store(now.0, Ordering::Relaxed);
        } else if now.since(calm_at) > BURST {
            return inside < self.most.div_ceil(SUSTAINED_DIVISOR);
        }
        inside < self.most
    }
}

/// A request's slot in the limit; released at the latest when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct WorkPermit(Arc<WorkSlot>);

#[derive(Debug)]
struct WorkSlot {
    limiter: Arc<ConcurrencyLimit>,
    is_inside: AtomicBool,
    /// Start of the current work; milliseconds since 1970.
    began: AtomicI64,
    /// Whether the client may send the request again without doing its work twice.
    is_retryable: AtomicBool,
    is_given_up: AtomicBool,
}

impl WorkPermit {
    pub(crate) fn new(limiter: &Arc<ConcurrencyLimit>) -> Self {
        Self(Arc::new(WorkSlot {
            limiter: limiter.clone(),
            is_inside: AtomicBool::new(false),
            began: AtomicI64::new(0),
            is_retryable: AtomicBool::new(false),
            is_given_up: AtomicBool::new(false),
        }))
    }

    /// Takes the slot; `false` if the limit is reached.
    pub(crate) fn try_start(&self, now: Timestamp) -> bool {
        if self.0.is_inside.swap(true, Ordering::Relaxed) {
            return true;
        }
        self.0.began.store(now.0, Ordering::Relaxed);
        let limiter = &self.0.limiter;
        if limiter.admits(limiter.inside.fetch_add(1, Ordering::Relaxed), now) {
            return true;
        }
        self.pause();
        false
    }

    /// Returns how long it may still hold the slot; all of `patience` while it does not hold it.
    pub(crate) fn time_left(&self, now: Timestamp, patience: Duration) -> Duration {
        if !self.0.is_inside.load(Ordering::Relaxed) {
            return patience;
        }
        let began = Timestamp(self.0.began.load(Ordering::Relaxed));
        patience.saturating_sub(now.since(began))
    }

    /// Notes that a repeat of the request does nothing twice: giving the request up cancels what it
    /// began, or the repeat finds it.
    pub(crate) fn set_retryable(&self) {
        self.0.is_retryable.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_retryable(&self) -> bool {
        self.0.is_retryable.load(Ordering::Relaxed)
    }

    /// Releases the slot of a request whose work takes too long.
    pub(crate) fn give_up(&self) {
        self.0.is_given_up.store(true, Ordering::Relaxed);
        self.pause();
    }

    /// Whether the relay gave the request up; a client that disconnects does not.
    pub(crate) fn is_given_up(&self) -> bool {
        self.0.is_given_up.load(Ordering::Relaxed)
    }

    /// Releases the slot while the request waits.
    pub(crate) fn pause(&self) {
        if self.0.is_inside.swap(false, Ordering::Relaxed) {
            self.0.limiter.inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for WorkSlot {
    fn drop(&mut self) {
        if *self.is_inside.get_mut() {
            self.limiter.inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Relay {
    /// Returns the error for an overloaded relay, with a random `Retry-After` so that clients do
    /// not return together.
    pub(crate) fn busy(&self) -> ApiError {
        let seconds = self.world.random().map_or(3, |bytes| 1 + bytes[0] % 5);
        let message = "the relay is overloaded; try again in a moment";
        ApiError::new(ErrorCode::Busy, message).after(Duration::from_secs(seconds.into()))
    }

    /// Returns the error for a request that was given up: `busy` only where it may be sent again.
    pub(crate) fn gave_up(&self, permit: &WorkPermit) -> ApiError {
        if permit.is_retryable() {
            return self.busy();
        }
        let message = "the relay did not finish the request in time and gave it up; it may still \
                       take effect, so check before you send it again";
        ApiError::new(ErrorCode::OutcomeUnknown, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn limits() -> RateLimits {
        RateLimits::new(&RelaySettings::default())
    }

    fn from(address: &str) -> Peer {
        Peer {
            address: address.parse().unwrap(),
            is_secure: false,
        }
    }

    #[test]
    fn an_address_that_fails_too_often_is_not_told_why_and_others_are() {
        let limits = limits();
        let failed = |address: &str| limits.throttle_denied(from(address), Denied::Key, NOW);
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
        let nothing = limits.throttle_denied(from("2001:db8::1"), Denied::Nothing, NOW);
        assert!(matches!(nothing, Denied::Nothing));
    }

    #[test]
    fn a_name_tried_from_everywhere_is_closed_to_all_but_those_at_home() {
        let limits = limits();
        let home = from("203.0.113.9");
        limits.try_login(home, "jan", NOW).unwrap().succeeded();
        let tried = |n: u32| {
            let address = format!("198.51.{}.{}", n / 250, n % 250);
            limits.try_login(from(&address), "jan", NOW).is_ok()
        };
        assert_eq!((0..1000).filter(|n| tried(*n)).count(), 20);
        assert!(limits.try_login(home, "jan", NOW).is_ok(), "its owner");
        let other = limits.try_login(from("198.51.0.9"), "ola", NOW);
        assert!(other.is_ok(), "another name");
    }

    #[test]
    fn one_address_keeps_nobody_out_elsewhere() {
        let limits = limits();
        let here = from("198.51.100.7");
        let tried = (0..1000).filter(|_| limits.try_login(here, "jan", NOW).is_ok());
        assert_eq!(tried.count(), 5);
        let elsewhere = limits.try_login(from("203.0.113.9"), "jan", NOW);
        assert!(elsewhere.is_ok());
    }

    #[test]
    fn good_passwords_bad_keys_and_what_was_not_looked_at_keep_nobody_from_logging_in() {
        let limits = limits();
        let here = from("198.51.100.7");
        for _ in 0..100 {
            limits.throttle_denied(here, Denied::Key, NOW);
        }
        let at_once: Vec<_> = (0..40)
            .map(|n| limits.try_login(here, &format!("worker-{n}"), NOW).unwrap())
            .collect();
        at_once.into_iter().for_each(LoginAttempt::succeeded);
        for _ in 0..100 {
            limits.try_login(here, "jan", NOW).unwrap().not_checked();
        }
        assert!(limits.try_login(here, "jan", NOW).is_ok());
    }

    #[test]
    fn who_failed_too_often_is_remembered_while_fifteen_thousand_others_come_and_not_for_ever() {
        let limits = limits();
        let failed = |address: &str| limits.throttle_denied(from(address), Denied::Key, NOW);
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
        let limiter = Arc::new(ConcurrencyLimit::new(2));
        let work = || WorkPermit::new(&limiter);
        let (one, two, three) = (work(), work(), work());
        assert!(one.try_start(NOW) && two.try_start(NOW) && one.try_start(NOW));
        assert!(!three.try_start(NOW));
        one.pause();
        one.pause();
        assert!(three.try_start(NOW) && !one.try_start(NOW));
        drop((two.clone(), three));
        assert!(one.try_start(NOW));
        drop((one, two));
        assert_eq!(limiter.inside.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn work_that_began_late_has_all_its_time_and_waiting_takes_none() {
        let limiter = Arc::new(ConcurrencyLimit::new(2));
        let (one, patience) = (WorkPermit::new(&limiter), Duration::from_secs(30));
        let (second, later) = (Duration::from_secs(1), NOW + patience);
        let left = |now| one.time_left(now, patience);
        assert_eq!(left(later), patience, "its body is still to come");
        assert!(one.try_start(NOW));
        assert_eq!([left(NOW), left(NOW + second)], [patience, 29 * second]);
        assert_eq!([left(later), left(later + second)], [Duration::ZERO; 2]);
        one.pause();
        assert_eq!(left(later), patience);
        assert!(one.try_start(later));
        assert_eq!(left(later + second), 29 * second);
    }

    #[test]
    fn a_burst_may_fill_the_gate_and_of_a_load_that_stands_a_quarter_is_let_in() {
        let limiter = Arc::new(ConcurrencyLimit::new(64));
        let come = |count: usize, now: Timestamp| {
            let came = std::iter::repeat_with(|| WorkPermit::new(&limiter)).take(count);
            came.filter(|one| one.try_start(now)).collect::<Vec<_>>()
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
