//! Rate limits.
//!
//! - Requests per key: a token bucket (`--key-rate`). Requests of workers to their carrier are
//!   exempt: leases pay for most of them, and the rest is delayed.
//! - Refusals because of overload or a reached limit, of all callers together: paced by delaying
//!   the response.
//! - Invalid keys per address (IPv6: per /64): after 5 a minute answered 429 instead of 401. Valid
//!   keys are unaffected, so that clients behind one address do not lock each other out; keys are
//!   too long to be guessed.
//! - Failed logins per address, and per user name at four times the rate: further passwords are not
//!   checked for a while. Failures from addresses where that user has logged in before do not count
//!   against the name, so that an attacker cannot lock the owner out. Invalid keys and successful
//!   logins do not count.

use std::{net::IpAddr, time::Duration};

use parking_lot::Mutex;
use proto::{ErrorCode, Timestamp};
use queue::{KeyId, UserId};

use crate::{
    RelaySettings,
    auth::{Denied, key_id_of_user},
    carrier::pace::unpaid_limit,
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
    /// Limit on what no lease pays for of the polling workers of one key.
    unpaid_limit: Option<RateLimit>,
    pollers: Mutex<RecentMap<KeyId, RateState>>,
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
            unpaid_limit: unpaid_limit(settings),
            pollers: Mutex::new(RecentMap::new(REMEMBERED)),
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
        self.take_request(&key_id_of_user(user), now)
    }

    /// Counts one request of a polling worker with this key, and returns how long to delay it.
    pub(crate) fn pace_worker(&self, key: &str, now: Timestamp) -> Duration {
        self.unpaid_limit.map_or(Duration::ZERO, |limit| {
            limit.reserve(self.pollers.lock().entry(key.to_owned()), now)
        })
    }

    /// Takes back that many requests of the polling workers with this key: leases pay for them.
    pub(crate) fn pay_worker(&self, key: &str, requests: u32) {
        if let Some(limit) = self.unpaid_limit {
            limit.give_back(self.pollers.lock().entry(key.to_owned()), requests);
        }
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

fn rate_limited(wait: Duration, why: &str) -> ApiError {
    ApiError::new(ErrorCode::RateLimited, why).after(wait)
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
}
