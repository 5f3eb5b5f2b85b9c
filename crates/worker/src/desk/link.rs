//! The desk as a source sees it.

use std::{ops::Bound, sync::Arc, time::Duration};

use dialect::ollama::{self, RequestHead};
use proto::{
    Body, Detail, ErrorCode, JobError, LeaseToken, ModelName, WorkerReport, limits,
    status::{CarrierKind, HopState},
    worker::{LeaseHead, Retry},
};
use tokio::time::Instant;

use super::{Desk, Look, State};
use crate::{
    held::{Ending, Held, Outgoing},
    job,
};

impl Desk {
    /// A new link: nothing was sent over it yet. What is held waits for [`Desk::resume`] unless
    /// `confirmed`, for links on which sending again is the way to ask. Answers with all leases
    /// that are held.
    pub fn open(&self, confirmed: bool) -> Vec<LeaseToken> {
        let mut state = self.lock();
        for held in state.held.values_mut() {
            held.rewind();
            held.confirmed = confirmed;
        }
        state.held.keys().copied().collect()
    }

    /// The link is proven: the relay said its first word.
    pub fn link_up(&self, carrier: CarrierKind) {
        let mut state = self.lock();
        state.relay.state = HopState::Up;
        state.relay.problem.clear();
        state.is_refused = false;
        state.carrier = Some(carrier);
        drop(state);
        self.publish();
        self.link
            .send_if_modified(|up| !std::mem::replace(up, true));
    }

    /// There is no link; `problem` says why, for the owner, and is empty if nothing is wrong.
    pub fn link_down(&self, problem: &str) {
        self.link_ended(problem, false);
    }

    /// The relay refused the key, and says why.
    pub fn link_refused(&self, problem: &str) {
        self.link_ended(problem, true);
    }

    fn link_ended(&self, problem: &str, is_refused: bool) {
        let mut state = self.lock();
        state.is_refused = is_refused;
        state.relay.state = if problem.is_empty() {
            HopState::Unknown
        } else {
            HopState::Down
        };
        problem.clone_into(&mut state.relay.problem);
        state.carrier = None;
        drop(state);
        self.publish();
        self.link_changes();
    }

    /// There is no link, and another is tried at once: what is shown stays until that is known.
    pub fn link_changes(&self) {
        self.link
            .send_if_modified(|up| std::mem::replace(up, false));
    }

    /// Takes a job and starts it, or puts it down to be given back at once if it cannot start.
    pub fn lease(self: &Arc<Self>, head: LeaseHead, body: Body) {
        let token = head.token;
        let asked = ollama::request_head(head.op, &body.0).ok();
        // What the relay calls it does not count: nothing else runs beside the slots.
        let is_urgent = head.op.changes_models() || asked.as_ref().is_some_and(|asked| asked.loads);
        let mut state = self.lock();
        if state.held.contains_key(&token) {
            return;
        }
        // An older lease of the same job is stale by definition.
        let older: Vec<_> = state.held.keys().copied().collect();
        for old in older.into_iter().filter(|old| old.job == token.job) {
            if let Some(held) = state.held.remove(&old) {
                held.stop.cancel();
            }
        }
        let refusal = self.refusal(&mut state, &head, &body, asked, is_urgent);
        let stop = self.stop_jobs.child_token();
        let now = self.tuning.clock.now();
        let (model, op, wanted_for) = (head.model.clone(), head.op, job::wanted_for(&head, now));
        let mut held = Held::new(head, now, stop.clone());
        held.is_urgent = is_urgent;
        if let Some(ending) = refusal {
            held.end(ending);
            state.held.insert(token, held);
            drop(state);
            self.outgoing.notify_one();
        } else {
            state.held.insert(token, held);
            drop(state);
            let work = job::Work {
                token,
                op,
                model,
                wanted_for,
                body,
                stop,
            };
            self.jobs.spawn(work.run(Arc::clone(self)));
            // There is one more lease to renew in time.
            self.outgoing.notify_one();
        }
        self.recount();
    }

    /// Puts down a lease whose request never fully arrived, to be given back.
    pub fn lease_without_body(&self, head: LeaseHead) {
        let why = "the link broke before the whole request had arrived";
        self.put_down(head, Ending::nack(Retry::Now, ErrorCode::WorkerLost, why));
    }

    /// Puts down a lease that was withdrawn before its request had arrived, to be given back.
    pub fn lease_withdrawn(&self, head: LeaseHead) {
        self.put_down(head, withdrawn());
    }

    fn put_down(&self, head: LeaseHead, ending: Ending) {
        let token = head.token;
        let mut held = Held::new(head, self.tuning.clock.now(), self.stop_jobs.child_token());
        held.end(ending);
        self.lock().held.entry(token).or_insert(held);
        self.recount();
        self.outgoing.notify_one();
    }

    fn refusal(
        &self,
        state: &mut State,
        head: &LeaseHead,
        body: &Body,
        asked: Option<RequestHead>,
        is_urgent: bool,
    ) -> Option<Ending> {
        let back = |code, why: &str| Some(Ending::nack(Retry::Now, code, why));
        if head.op.changes_models() && !state.report.model_changes {
            let why = "the owner of the machine does not allow changes of its models; it would \
                       need `hearth agent --allow-model-changes`";
            return Some(Ending::nack(Retry::Never, ErrorCode::Forbidden, why));
        }
        if head.op.changes_models()
            && !ollama::change_head(head.op, &body.0).is_ok_and(|change| !change.needs_files)
        {
            let why = "no file of this machine is read, or put on it, for a model";
            return Some(Ending::nack(Retry::Never, ErrorCode::Forbidden, why));
        }
        if state.paused {
            return back(ErrorCode::NoWorker, "the owner of the machine paused it");
        }
        if state.draining {
            return back(ErrorCode::Draining, "the worker is stopping");
        }
        if !state.is_leasing() {
            return back(ErrorCode::EngineUnavailable, "the engine is down");
        }
        let running = state.running();
        let needs_slot = !is_urgent || running.room_beside() == 0;
        if needs_slot && running.slots() >= self.slots as usize {
            return back(ErrorCode::NoWorker, "every slot of the worker is taken");
        }
        if state.held.len() >= limits::HELD_MAX {
            let why = "too many ends of earlier jobs are not confirmed";
            return back(ErrorCode::NoWorker, why);
        }
        if head.op.needs_model() && !state.has(&head.model) {
            state.look = state.look.max(Look::Models);
            self.probe.notify_one();
            let why = format!("this worker has no model {}", head.model);
            let retry = Retry::AfterMs(1_000);
            return Some(Ending::nack(retry, ErrorCode::UnknownModel, why));
        }
        // The engine may read what this worker cannot, such as text that is not UTF-8: it could run
        // another model than the lease names.
        let Some(asked) = asked else {
            let why = "the request is not one JSON object in UTF-8";
            return Some(Ending::nack(Retry::Never, ErrorCode::BadRequest, why));
        };
        let named = asked.model?;
        let agrees = ModelName::new(named).is_ok_and(|named| named.is_same(&head.model));
        (!agrees).then(|| {
            let why = "the request names another model than its lease";
            Ending::nack(Retry::Never, ErrorCode::BadRequest, why)
        })
    }

    /// The relay says that a held lease is still good, and that it has lines up to `stored`.
    pub fn resume(&self, token: LeaseToken, stored: u64) {
        let mut state = self.lock();
        let Some(held) = state.held.get_mut(&token) else {
            return;
        };
        held.confirmed = true;
        held.renewed = Instant::now();
        if held.outbox.can_continue_from(stored) {
            held.outbox.stored(stored);
            held.room.notify_one();
            drop(state);
        } else {
            drop(state);
            self.cannot_continue(token);
        }
        self.outgoing.notify_one();
    }

    /// The relay has fewer lines than it once confirmed: the job begins anew, also where it had
    /// ended, for its end cannot be told without them.
    pub fn cannot_continue(&self, token: LeaseToken) {
        let why = "the relay asks for lines that were acknowledged before";
        if let Some(held) = self.lock().held.get_mut(&token) {
            held.give_up(Ending::nack(Retry::Now, ErrorCode::Internal, why));
        }
        self.recount();
        self.outgoing.notify_one();
    }

    /// Whether a held lease still waits for the relay's word on this link.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        self.lock().held.values().any(|held| !held.confirmed)
    }

    /// Lines up to `n` need not be kept.
    pub fn stored(&self, token: LeaseToken, n: u64) {
        if let Some(held) = self.lock().held.get_mut(&token) {
            held.outbox.stored(n);
            held.room.notify_one();
        }
    }

    /// What was sent for this lease did not arrive: send it again.
    pub fn rewind(&self, token: LeaseToken) {
        if let Some(held) = self.lock().held.get_mut(&token) {
            held.rewind();
        }
        self.outgoing.notify_one();
    }

    /// The requester is gone: the engine stops, and the job is given back for good.
    pub fn cancel(&self, token: LeaseToken) {
        self.end(token, withdrawn());
    }

    /// The lease is over, well (`None`) or because it was lost; whatever runs for it stops.
    pub fn closed(&self, token: LeaseToken, code: Option<ErrorCode>) {
        let held = {
            let mut state = self.lock();
            let Some(held) = state.held.remove(&token) else {
                return;
            };
            held.count(code, &mut state.totals);
            held
        };
        if let Some(code) = code {
            tracing::info!(job.id = %token.job, job.attempt = token.attempt, %code, "lease lost");
        }
        held.stop.cancel();
        held.room.notify_one();
        self.recount();
        self.outgoing.notify_one();
    }

    /// What is to be sent next, jobs in turn, leaving out those that `is_busy`. It counts as
    /// sent from now on, until [`Desk::rewind`] or [`Desk::open`].
    pub fn next(&self, is_busy: impl Fn(LeaseToken) -> bool) -> Option<Outgoing> {
        let mut state = self.lock();
        let turn = state.turn;
        let mut pick = |range: (Bound<LeaseToken>, Bound<LeaseToken>)| {
            let mut waiting = state.held.range_mut(range);
            waiting.find_map(|(token, held)| (!is_busy(*token)).then(|| held.next()).flatten())
        };
        let next = pick((Bound::Excluded(turn), Bound::Unbounded))
            .or_else(|| pick((Bound::Unbounded, Bound::Included(turn))))?;
        state.turn = next.token();
        Some(next)
    }

    /// Waits until there may be something new to send or to say.
    pub async fn changed(&self) {
        self.outgoing.notified().await;
    }

    /// How many jobs the relay may have running here at once, 0 for none: as many as there are
    /// slots, unless too much of what ended waits to be confirmed.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        let state = self.lock();
        let (mut ended, mut bytes) = (0, 0);
        for held in state.held.values().filter(|held| !held.is_running()) {
            ended += 1;
            bytes += held.outbox.bytes();
        }
        if !state.is_leasing() || bytes > limits::UNCONFIRMED_MAX {
            return 0;
        }
        let left = limits::HELD_MAX.saturating_sub(ended);
        self.slots.min(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// How many more jobs could start now: in slots, and besides of those that wait for none.
    #[must_use]
    pub fn free(&self) -> (u32, u32) {
        let capacity = self.capacity();
        let running = self.lock().running();
        let taken = u32::try_from(running.slots()).unwrap_or(u32::MAX);
        let beside = u32::try_from(running.room_beside()).unwrap_or(0);
        let beside = if capacity == 0 { 0 } else { beside };
        (capacity.saturating_sub(taken), beside)
    }

    /// All leases that are held.
    #[must_use]
    pub fn held(&self) -> Vec<LeaseToken> {
        self.lock().held.keys().copied().collect()
    }

    /// The leases whose jobs run. Of one that ended only its end is worth a word.
    #[must_use]
    pub fn at_work(&self) -> Vec<LeaseToken> {
        let state = self.lock();
        let running = state.held.iter().filter(|(_, held)| held.is_running());
        running.map(|(token, _)| *token).collect()
    }

    /// What the engine offers, if that changed since the report numbered `told`; 0 for any.
    #[must_use]
    pub fn report_after(&self, told: u64) -> Option<(u64, WorkerReport)> {
        let state = self.lock();
        (state.report_number != told).then(|| (state.report_number, state.report.clone()))
    }

    /// The same, if it must be told before anything a job says.
    #[must_use]
    pub fn report_before(&self, told: u64) -> Option<(u64, WorkerReport)> {
        let is_needed = self.lock().report_hurries > told;
        if is_needed {
            self.report_after(told)
        } else {
            None
        }
    }

    /// The first thing that was learned of the engine's models after `told`, and its number; 0 is
    /// from the beginning.
    #[must_use]
    pub fn detail_after(&self, told: u64) -> Option<(u64, Detail)> {
        self.lock().details.after(told)
    }

    /// The leases the relay has not heard of for `after`; they count as renewed from now on.
    #[must_use]
    pub fn take_due(&self, after: Duration) -> Vec<LeaseToken> {
        let now = Instant::now();
        let mut state = self.lock();
        let due = |held: &Held| held.confirmed && held.renewed + after <= now;
        let due = state.held.iter_mut().filter(|(_, held)| due(held));
        due.map(|(token, held)| {
            held.renewed = now;
            *token
        })
        .collect()
    }

    /// When the next lease has to be renewed, if any is held.
    #[must_use]
    pub fn next_due(&self, after: Duration) -> Option<Instant> {
        let state = self.lock();
        let confirmed = state.held.values().filter(|held| held.confirmed);
        confirmed.map(|held| held.renewed + after).min()
    }
}

impl State {
    fn has(&self, model: &ModelName) -> bool {
        let mut models = self.report.models.iter();
        models.any(|entry| entry.name.is_same(model))
    }
}

fn withdrawn() -> Ending {
    let why = "the requester withdrew the job";
    Ending::nack(Retry::Never, ErrorCode::Cancelled, why)
}

impl From<JobError> for Ending {
    fn from(error: JobError) -> Self {
        Self::End(proto::End::Failed { error })
    }
}
