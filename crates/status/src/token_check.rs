use std::time::Instant;

use http::{HeaderMap, header};
use parking_lot::Mutex;
use proto::{
    ErrorCode,
    status::v1::{Proof, Side},
};

use crate::{Approvals, LocalToken, Refusal, bucket::Bucket, proof::Challenge};

/// The rights of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// May read the status.
    Read,
    /// May also send commands, as long as the grant of this number is valid.
    Guest(u64),
    /// May send commands, publish, and decide approvals for the owner.
    Command,
}

/// Invalid tokens checked without delay; then as many per second. The token is read from a file, so
/// a correct client never fails.
const WRONG_BURST: u32 = 10;
const WRONG_PER_SECOND: u32 = 1;

/// Checks the token that a client sends.
///
/// The correct token is never throttled: it has 256 random bits, so guessing is hopeless, and a
/// throttle would let any program lock the owner out by sending wrong ones. All wrong tokens,
/// however spelled, share one rate limit.
#[derive(Debug)]
pub(crate) struct TokenCheck {
    token: LocalToken,
    /// Tokens of permanent grants.
    guests: Option<Approvals>,
    wrong: Mutex<Bucket>,
}

impl TokenCheck {
    pub(crate) fn new(token: LocalToken, guests: Option<Approvals>, now: Instant) -> Self {
        Self {
            token,
            guests,
            wrong: Mutex::new(Bucket::new(WRONG_BURST, WRONG_PER_SECOND, now)),
        }
    }

    pub(crate) fn admit(&self, headers: &HeaderMap, now: Instant) -> Result<Grant, Refusal> {
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        let Some(first) = shown.next() else {
            return Ok(Grant::Read);
        };
        let is_alone = shown.next().is_none();

        let token = bearer(first.as_bytes()).filter(|_| is_alone);
        if token.is_some_and(|token| self.token.is(token)) {
            return Ok(Grant::Command);
        }
        let guest = token.and_then(|token| self.guests.as_ref()?.find(token));
        if let Some(guest) = guest {
            return Ok(Grant::Guest(guest));
        }
        if !self.looks_at_wrong(now) {
            return Err(Refusal::new(
                ErrorCode::RateLimited,
                "too many invalid tokens; try again in a second",
            ));
        }
        Err(Refusal::new(
            ErrorCode::Unauthorized,
            "invalid local token; it is in the file `hub.token` in Hearth's data folder",
        ))
    }

    /// Checks a client's proof as it checks a token. Returns the client's rights and the hub's own
    /// proof.
    pub(crate) fn prove(
        &self,
        challenge: &Challenge,
        proof: &Proof,
        now: Instant,
    ) -> Result<(Grant, Option<Proof>), ErrorCode> {
        if challenge.is_proven(&self.token, Side::Client, proof) {
            return Ok((Grant::Command, challenge.proof(&self.token, Side::Server)));
        }
        let guests = self.guests.as_ref();
        if let Some((guest, own)) = guests.and_then(|all| all.prove(challenge, proof)) {
            return Ok((Grant::Guest(guest), own));
        }
        Err(if self.looks_at_wrong(now) {
            ErrorCode::Unauthorized
        } else {
            ErrorCode::RateLimited
        })
    }

    /// Whether one more wrong token is within the rate limit.
    fn looks_at_wrong(&self, now: Instant) -> bool {
        let mut wrong = self.wrong.lock();
        let looks = wrong.wait(now).is_zero();
        if looks {
            wrong.take();
        }
        looks
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::status::v1::Nonce;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (header::AUTHORIZATION, value.parse().unwrap()))
            .collect()
    }

    fn token_check(now: Instant) -> (TokenCheck, String) {
        let token = LocalToken::new([7; 32]);
        let right = format!("Bearer {}", token.expose());
        (TokenCheck::new(token, None, now), right)
    }

    #[test]
    fn the_right_token_may_command_and_no_token_may_read() {
        let now = Instant::now();
        let (token_check, right) = token_check(now);
        assert_eq!(token_check.admit(&headers(&[]), now), Ok(Grant::Read));
        assert_eq!(
            token_check.admit(&headers(&[&right]), now),
            Ok(Grant::Command)
        );
        let lower = right.replace("Bearer", "bearer");
        assert_eq!(
            token_check.admit(&headers(&[&lower]), now),
            Ok(Grant::Command)
        );
    }

    #[test]
    fn every_other_spelling_is_wrong() {
        let now = Instant::now();
        let (_, right) = token_check(now);
        let token = &right[7..];
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            &right[..right.len() - 1],
            token,
            &format!("Basic {token}"),
            &format!("{right}0"),
        ] {
            let (token_check, _) = token_check(now);
            let refused = token_check.admit(&headers(&[wrong]), now).unwrap_err();
            assert_eq!(refused.code, ErrorCode::Unauthorized, "{wrong}");
        }
        let (token_check, _) = token_check(now);
        let doubled = token_check
            .admit(&headers(&[&right, &right]), now)
            .unwrap_err();
        assert_eq!(doubled.code, ErrorCode::Unauthorized);
    }

    #[test]
    fn a_hundred_thousand_guesses_in_a_minute_are_seventy_looks() {
        let start = Instant::now();
        let (token_check, _) = token_check(start);
        let wrong = headers(&["Bearer guess"]);
        let looked = (0..100_000_u32)
            .filter(|n| {
                let now = start + Duration::from_micros(600) * *n;
                token_check.admit(&wrong, now).unwrap_err().code == ErrorCode::Unauthorized
            })
            .count();
        assert!((69..=70).contains(&looked), "{looked}");
    }

    #[test]
    fn wrong_proofs_and_wrong_tokens_go_through_one_throttle() {
        let now = Instant::now();
        let (token_check, right) = token_check(now);
        let challenge = Challenge {
            port: 6001,
            server: Nonce([1; 32]),
            client: Nonce([2; 32]),
        };
        for n in 0..WRONG_BURST {
            if n % 2 == 0 {
                token_check
                    .admit(&headers(&["Bearer guess"]), now)
                    .unwrap_err();
            } else {
                let refused = token_check.prove(&challenge, &Proof([0; 32]), now);
                assert_eq!(refused, Err(ErrorCode::Unauthorized));
            }
        }
        let refused = token_check.prove(&challenge, &Proof([0; 32]), now);
        assert_eq!(refused, Err(ErrorCode::RateLimited));
        let token = LocalToken::new([7; 32]);
        let proof = challenge.proof(&token, Side::Client).unwrap();
        let own = (Grant::Command, challenge.proof(&token, Side::Server));
        assert_eq!(token_check.prove(&challenge, &proof, now), Ok(own));
        assert_eq!(
            token_check.admit(&headers(&[&right]), now),
            Ok(Grant::Command)
        );
    }

    #[test]
    fn nobody_can_lock_the_owner_out_with_wrong_tokens() {
        let now = Instant::now();
        let (token_check, right) = token_check(now);
        for _ in 0..WRONG_BURST {
            token_check
                .admit(&headers(&["Bearer guess"]), now)
                .unwrap_err();
        }
        let refused = token_check
            .admit(&headers(&["Bearer guess"]), now)
            .unwrap_err();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert_eq!(
            token_check.admit(&headers(&[&right]), now),
            Ok(Grant::Command)
        );
        assert_eq!(token_check.admit(&headers(&[]), now), Ok(Grant::Read));
    }
}
