//! The long poll of the HTTP carrier.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, FuturesUnordered},
};
use http::{HeaderValue, StatusCode, header};
use proto::{
    ErrorCode, JobError, LeaseToken, Timestamp, WorkerReport,
    admin::WorkerCarrier,
    limits,
    worker::{
        DRAIN_HEADER, DetailsAnswer, DetailsRequest, PollAnswer, PollRequest, PolledLease, Retry,
    },
};
use queue::{Extended, LeaseQuery};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    arrivals::Arrivals, http::parse, only_urgent, query_of, undelivered::UndeliveredLeases,
    writer::head_of,
};
use crate::{
    Relay,
    auth::{Caller, MayWork},
    error::ApiError,
    payload::{Payload, Poll},
    routing::{Allotment, RoutingEntry, WorkerLoad, reported_models},
    workers::{OnlineId, OnlineWorker},
};

/// Part of the longest hold by which the hold of a poll that asks for more may be shorter.
const SPREAD: f64 = 0.2;

/// `POST /api/worker/v1/poll`.
pub(crate) async fn poll(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    Payload(body): Poll,
) -> Result<Response, ApiError> {
    let asked: PollRequest = parse(&body)?;
    let held = asked.held.len();
    if held > limits::HELD_MAX {
        let max = limits::HELD_MAX;
        let message = format!("`held` names {held} leases; a worker can hold at most {max}");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    // The body counts until then for the report that was parsed from it.
    relay.pace(&caller).await;
    drop(body);
    let hold = Duration::from_millis(asked.wait_ms);
    let hold = held_for(hold, relay.settings.poll_hold, || relay.fraction());
    let newer = CancellationToken::new();
    let Some(report) = note_online(&relay, &caller, &asked, hold, &newer)? else {
        let answer = PollAnswer {
            report_wanted: true,
            ..PollAnswer::default()
        };
        return Ok(delivered(&relay, &caller, &answer, Vec::new()));
    };
    let mut poll = HeldPoll::new(relay, caller, asked, &report, newer);
    let until = Instant::now() + hold;
    let mut arrivals = Arrivals::of(&poll.relay, poll.caller.claimant());
    loop {
        arrivals.mark_seen();
        let drains = poll.relay.drain.is_cancelled();
        let (answer, lent) = poll.try_answer(&arrivals, !hold.is_zero()).await?;
        let is_over = answer != PollAnswer::default() || hold.is_zero() || drains;
        if is_over || !poll.wait_for_change(&mut arrivals, until).await {
            poll.relay.pay_polls(&poll.caller, answer.leases.len());
            return Ok(delivered(&poll.relay, &poll.caller, &answer, lent));
        }
    }
}

/// Returns how long a poll is held. Agents spread their polls by what they ask for; workers that ask
/// for more than the longest hold are spread here, so that they do not all poll together again.
pub(crate) fn held_for(
    asked: Duration,
    longest: Duration,
    random: impl FnOnce() -> f64,
) -> Duration {
    if asked <= longest {
        asked
    } else {
        longest.mul_f64(1.0 - SPREAD * random())
    }
}

/// A poll that is held until there is something to report.
struct HeldPoll {
    relay: Relay,
    caller: Caller,
    held: Vec<LeaseToken>,
    query: LeaseQuery,
    /// Request for urgent jobs, used if the main request finds none.
    urgent_query: LeaseQuery,
    /// Number of free slots, and of urgent jobs that can run beside them.
    free: usize,
    urgent: usize,
    load: WorkerLoad,
    routing_entry: RoutingEntry,
    /// Cancelled when the same worker sends a newer poll.
    newer: CancellationToken,
}

impl HeldPoll {
    fn new(
        relay: Relay,
        caller: Caller,
        asked: PollRequest,
        report: &WorkerReport,
        newer: CancellationToken,
    ) -> Self {
        let query = query_of(&caller, &asked.worker, report);
        let (free, urgent) = if report.engine_up {
            let urgent = (asked.urgent as usize).min(limits::URGENT_MAX);
            ((asked.free as usize).min(limits::HELD_MAX), urgent)
        } else {
            (0, 0)
        };
        let busy = asked.held.len();
        Self {
            load: WorkerLoad::new(&caller.serve, &reported_models(report), free + busy, busy),
            routing_entry: relay.routing.join(),
            urgent_query: only_urgent(query.clone()),
            held: asked.held,
            relay,
            caller,
            query,
            free,
            urgent,
            newer,
        }
    }

    /// Returns what there is to report now. A poll that does not wait leaves jobs for which another
    /// worker ranks first to that worker.
    async fn try_answer(
        &mut self,
        arrivals: &Arrivals,
        waits: bool,
    ) -> Result<(PollAnswer, Vec<UndeliveredLeases>), ApiError> {
        let relay = &self.relay;
        // With room for small jobs only, it must not keep others from the rest.
        let stands = self.free > 0 && waits && arrivals.has_room();
        let allotment = if stands {
            self.routing_entry.update(self.load.clone())
        } else {
            self.routing_entry.leave();
            Allotment::default()
        };
        self.query.excluded_models.clone_from(&allotment.excluded);
        let max = relay.at_once(&self.query, &allotment, self.free);
        let mut answer = PollAnswer::default();
        renew(relay, &self.caller, &self.held, &mut answer).await?;
        let mut lent = vec![lend(relay, arrivals, &self.query, max, &mut answer).await?];
        if answer.leases.is_empty() {
            let urgent = &self.urgent_query;
            lent.push(lend(relay, arrivals, urgent, self.urgent, &mut answer).await?);
        }
        Ok((answer, lent))
    }

    /// Waits for a change; `false` if the poll must be answered as it is.
    async fn wait_for_change(&self, arrivals: &mut Arrivals, until: Instant) -> bool {
        let store = &self.relay.store;
        let withdrawn = self.held.iter().map(|token| store.cancelled(*token));
        let mut withdrawn: FuturesUnordered<_> = withdrawn.collect();
        tokio::select! {
            arrived = timeout_at(until, arrivals.changed()) => matches!(arrived, Ok(Ok(()))),
            Some(()) = withdrawn.next() => true,
            () = self.routing_entry.woken() => true,
            () = self.relay.drain.cancelled() => true,
            () = self.newer.cancelled() => false,
        }
    }
}

/// `POST /api/worker/v1/details`.
pub(crate) async fn details(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    Payload(body): Poll,
) -> Result<Json<DetailsAnswer>, ApiError> {
    let DetailsRequest {
        worker,
        report,
        details,
    } = parse(&body)?;
    relay.pace(&caller).await;
    let id = OnlineId::Poll(caller.key_id().to_owned(), worker);
    if let Some(report) = report {
        relay
            .workers
            .report(&id, Arc::new(caller.permitted(report)));
        // A held poll still asks for jobs of the models reported before.
        relay.workers.end_poll(&id);
    }
    let report_wanted = !relay.workers.tell(&id, details);
    Ok(Json(DetailsAnswer { report_wanted }))
}

/// Records that the worker is online; returns its report, or `None` if it must send it again.
fn note_online(
    relay: &Relay,
    caller: &Caller,
    asked: &PollRequest,
    hold: Duration,
    newer: &CancellationToken,
) -> Result<Option<Arc<WorkerReport>>, ApiError> {
    let id = OnlineId::Poll(caller.key_id().to_owned(), asked.worker.clone());
    relay.workers.admit(&id, relay.now())?;
    relay
        .workers
        .suspect_older(caller.key.as_ref(), &asked.worker);
    let until = relay.now() + hold + relay.settings.online_after_poll;
    let report = match &asked.report {
        None => relay.workers.heard(&id, until, newer.clone()),
        Some(report) => {
            let report = Arc::new(caller.permitted(report.clone()));
            let online = OnlineWorker {
                report: Some(report.clone()),
                until: Some(until),
                poll: Some(newer.clone()),
                ..OnlineWorker::of(caller, WorkerCarrier::LongPoll)
            };
            relay.workers.register(id.clone(), online);
            Some(report)
        }
    };
    let held = u32::try_from(asked.held.len()).unwrap_or(u32::MAX);
    let slots = asked.free.saturating_add(held);
    relay.workers.seen(&id, relay.now(), Some(slots));
    Ok(report)
}

async fn renew(
    relay: &Relay,
    caller: &Caller,
    held: &[LeaseToken],
    answer: &mut PollAnswer,
) -> Result<(), ApiError> {
    for token in held {
        match relay.check_serves(caller, *token).await {
            Ok(()) => {}
            Err(error) if error.code == ErrorCode::UnknownJob => {
                answer.gone.push(*token);
                continue;
            }
            Err(error) => return Err(error),
        }
        let renewed = relay
            .store
            .extend(relay.now(), *token, relay.settings.lease)
            .await;
        match renewed {
            Ok(Extended::Active) => {}
            Ok(Extended::Cancelled) => answer.cancelled.push(*token),
            Err(error) if error.is_of_store() => return Err(error.into()),
            Err(_) => answer.gone.push(*token),
        }
    }
    Ok(())
}

async fn lend(
    relay: &Relay,
    arrivals: &Arrivals,
    query: &LeaseQuery,
    free: usize,
    answer: &mut PollAnswer,
) -> Result<UndeliveredLeases, ApiError> {
    if free == 0 {
        return Ok(UndeliveredLeases::new(relay.clone(), Vec::new()));
    }
    let length = relay.settings.lease;
    let mut lent = relay
        .lease_many(arrivals, query.clone(), length, free)
        .await?;
    let mut unreadable = Vec::new();
    for lease in lent.leases() {
        // No route accepts a body that is not UTF-8.
        match String::from_utf8(lease.job.body.0.to_vec()) {
            Ok(body) => {
                let head = head_of(lease, relay.now());
                answer.leases.push(PolledLease { head, body });
            }
            Err(_) => unreadable.push(lease.token),
        }
    }
    for token in unreadable {
        lent.forget(token);
        let why = JobError::new(ErrorCode::BadRequest, "the request is not UTF-8");
        let store = &relay.store;
        store.nack(relay.now(), token, Retry::Never, why).await?;
    }
    Ok(lent)
}

/// Returns the response. An empty answer has status 204.
fn delivered(
    relay: &Relay,
    caller: &Caller,
    answer: &PollAnswer,
    lent: Vec<UndeliveredLeases>,
) -> Response {
    let mut response = if *answer == PollAnswer::default() {
        StatusCode::NO_CONTENT.into_response()
    } else {
        let text = serde_json::to_vec(answer).unwrap_or_default();
        in_parts(relay, caller, text.into(), lent, relay.settings.lease)
    };
    if relay.drain.is_cancelled() {
        let headers = response.headers_mut();
        headers.insert(DRAIN_HEADER, HeaderValue::from_static("1"));
    }
    response
}

/// What is left to send, and when its leases were renewed.
type Way = (Relay, Bytes, Vec<UndeliveredLeases>, Timestamp);

/// Returns the response with this JSON, which counts for the caller. The leases in it, of length
/// `lease`, are renewed while it is being sent, and given back if it is not sent in full.
pub(crate) fn in_parts(
    relay: &Relay,
    caller: &Caller,
    text: Bytes,
    mut lent: Vec<UndeliveredLeases>,
    lease: Duration,
) -> Response {
    let length = text.len();
    let text = relay.sending.counted(&caller.claimant(), text);
    lent.iter_mut().for_each(UndeliveredLeases::drop_requests);
    let way = (relay.clone(), text, lent, relay.now());
    let next = move |(relay, mut text, mut lent, mut renewed): Way| async move {
        if text.is_empty() {
            return None;
        }
        let leases = || {
            lent.iter()
                .flat_map(UndeliveredLeases::leases)
                .map(|lease| lease.token)
        };
        relay
            .renew_unheard(&mut renewed, lease, || leases().collect())
            .await;
        let part = text.split_to(text.len().min(limits::FRAME_MAX));
        if text.is_empty() {
            lent.drain(..).for_each(|lent| drop(lent.take()));
        }
        Some((Ok::<_, Infallible>(part), (relay, text, lent, renewed)))
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(way, next)));
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_that_ask_for_more_than_the_longest_hold_are_spread() {
        let seconds = Duration::from_secs;
        for (asked, random, held) in [(3, 0.5, 3), (10, 0.5, 10), (11, 0.0, 10), (25, 1.0, 8)] {
            let hold = held_for(seconds(asked), seconds(10), || random);
            assert_eq!(hold, seconds(held), "{asked}");
        }
    }
}
