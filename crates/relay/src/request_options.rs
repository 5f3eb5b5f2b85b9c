//! Request headers that control the job, on every route that creates one.
//!
//! ```text
//! idempotency-key: KEY          a repeat of the request finds its job instead of creating another
//! x-hearth-deadline-ms: N       the answer is wanted within this time (at most a week), also from
//!                               an agent that is offline now
//! x-hearth-priority: N          1 (highest) to 10
//! x-hearth-worker: NAME         only the worker with this name may answer (or `x-device-id`)
//! x-hearth-thinking-status: 1   while it waits, a stream sends the queue position as a thought of
//!                               the model; `?hearth_status=thinking` does the same
//! ```

use std::time::Duration;

use http::{HeaderMap, request::Parts};
use proto::{
    ErrorCode, Priority, WorkerId,
    limits::{DEADLINE_MAX, IDEMPOTENCY_KEY_MAX},
};

use crate::{
    error::ApiError,
    headers::{DEADLINE, IDEMPOTENCY_KEY as KEY, PLACE, PRIORITY, WORKER as WORKERS},
};

/// Returns the idempotency key, under which a repeat of this request finds its job.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let is_printable = |key: &&[u8]| key.iter().all(|c| matches!(c, b' '..=b'~'));
    let key = Some(key.as_bytes())
        .filter(|key| (1..=IDEMPOTENCY_KEY_MAX).contains(&key.len()) && keys.next().is_none())
        .filter(is_printable)
        .and_then(|key| String::from_utf8(key.to_vec()).ok());
    key.map(Some).ok_or_else(|| {
        bad(format!(
            "{KEY} must be sent once, with 1 to {IDEMPOTENCY_KEY_MAX} printable ASCII characters"
        ))
    })
}

/// Returns the time within which the answer is wanted.
pub(crate) fn wanted_for(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(said) = headers.get(DEADLINE) else {
        return Ok(None);
    };
    let millis = said.to_str().ok().and_then(|said| said.parse().ok());
    let millis =
        millis.ok_or_else(|| bad(format!("{DEADLINE} must be a number of milliseconds")))?;
    deadline(Duration::from_millis(millis)).map(Some)
}

/// Returns the priority that the request asks for.
pub(crate) fn priority(headers: &HeaderMap) -> Result<Option<Priority>, ApiError> {
    let mut said = headers.get_all(PRIORITY).iter();
    let Some(priority) = said.next() else {
        return Ok(None);
    };
    let level = priority.to_str().ok().and_then(|said| said.parse().ok());
    let priority = level.filter(|_| said.next().is_none());
    let priority = priority.and_then(Priority::new);
    priority.map(Some).ok_or_else(|| {
        bad(format!(
            "{PRIORITY} must be sent once, with a number from 1 (highest) to 10"
        ))
    })
}

/// Returns the only worker that may answer.
pub(crate) fn worker(headers: &HeaderMap) -> Result<Option<WorkerId>, ApiError> {
    let mut said = WORKERS
        .iter()
        .flat_map(|name| headers.get_all(*name).iter().map(move |said| (name, said)));
    let Some((name, worker)) = said.next() else {
        return Ok(None);
    };
    let is_one = said.all(|(_, other)| other == worker);
    let worker = worker.to_str().ok().and_then(|said| said.parse().ok());
    worker.filter(|_| is_one).map(Some).ok_or_else(|| {
        bad(format!(
            "{name} must be the name of one agent, as set at its start or as the log shows it"
        ))
    })
}

/// Whether the queue position is to be sent as a thought of the model.
pub(crate) fn wants_position(parts: &Parts) -> bool {
    let query = parts.uri.query().unwrap_or_default();
    parts.headers.get(PLACE).is_some_and(|value| value == "1")
        || query
            .split('&')
            .any(|pair| pair == "hearth_status=thinking")
}

/// Checks that a deadline is between 1 ms and 7 days.
pub(crate) fn deadline(wanted_for: Duration) -> Result<Duration, ApiError> {
    if wanted_for.is_zero() || wanted_for > DEADLINE_MAX {
        let most = DEADLINE_MAX.as_millis();
        return Err(bad(format!(
            "a deadline must be 1 to {most} milliseconds (7 days) from now"
        )));
    }
    Ok(wanted_for)
}

fn bad(message: String) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                *name,
                http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn a_key_is_printable_single_and_not_too_long() {
        let longest = "k".repeat(255);
        for fine in ["k", "a b-c_1:{}", &longest] {
            let read = idempotency_key(&headers(&[(KEY, fine)])).unwrap();
            assert_eq!(read.as_deref(), Some(fine));
        }
        assert_eq!(idempotency_key(&headers(&[])).unwrap(), None);
        for wrong in ["", "ż", "a\tb", &"k".repeat(256)] {
            assert!(
                idempotency_key(&headers(&[(KEY, wrong)])).is_err(),
                "{wrong}"
            );
        }
        assert!(idempotency_key(&headers(&[(KEY, "a"), (KEY, "b")])).is_err());
    }

    #[test]
    fn a_worker_is_named_once_in_either_header() {
        let read = |said: &[(&'static str, &str)]| {
            let read = worker(&headers(said));
            read.map(|worker| worker.map(|worker| worker.to_string()))
        };
        let [own, device] = WORKERS;
        assert_eq!(read(&[]).unwrap(), None);
        for fine in [
            &[(own, "desk")][..],
            &[(device, "desk")],
            &[(own, "desk"), (device, "desk")],
        ] {
            assert_eq!(read(fine).unwrap().as_deref(), Some("desk"));
        }
        for wrong in [
            &[(own, "")][..],
            &[(own, "a b")],
            &[(own, "a"), (own, "b")],
            &[(own, "a"), (device, "b")],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_priority_is_sent_once_and_is_one_of_ten() {
        let read = |said: &str| priority(&headers(&[(PRIORITY, said)]));
        assert_eq!(priority(&headers(&[])).unwrap(), None);
        for level in 1..=10 {
            assert_eq!(read(&level.to_string()).unwrap(), Priority::new(level));
        }
        for wrong in ["0", "11", "256", "-1", "", "1.5", "high"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let twice = headers(&[(PRIORITY, "3"), (PRIORITY, "3")]);
        assert!(priority(&twice).is_err());
    }

    #[test]
    fn a_deadline_is_at_most_a_week() {
        let week = 7 * 24 * 60 * 60 * 1000_u64;
        let read = |said: &str| wanted_for(&headers(&[(DEADLINE, said)]));
        assert_eq!(read("1").unwrap(), Some(Duration::from_millis(1)));
        let longest = Duration::from_millis(week);
        assert_eq!(read(&week.to_string()).unwrap(), Some(longest));
        for wrong in ["0", "-1", "", "1.5", "soon", &(week + 1).to_string()] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
