//! The part of the table that links to a relay use.

use std::{ops::Bound, sync::Arc, time::Duration};

use dialect::ollama::{self, RequestHead};
use proto::{
    Body, Detail, ErrorCode, JobError, LeaseToken, ModelName, WorkerReport, limits,
    status::{CarrierKind, HopState},
    worker::{LeaseHead, Retry},
};
use tokio::time::Instant;

use super::{JobTable, Look, State};
use crate::{
    held::{Ending, Held, Outgoing},
    job,
};

impl JobTable {
    /// Starts a new link, over which nothing was sent yet. Held leases wait for
    /// [`JobTable::resume`] unless `confirmed`, which is for links where sending again reveals the
    /// state of a lease. Returns all held leases.
    pub fn open(&self, confirmed: bool) -> Vec<LeaseToken> {
        let mut state = self.lock();
        for held in state.held.values_mut() {
            held.rewind();
            held.confirmed = confirmed;
        }
        state.held.keys().copied().collect()
    }

    /// Records that the link works: the relay has sent its first message.
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

    /// Records that there is no link. `problem` is the reason for the owner; empty if there is
    /// none.
    pub fn link_down(&self, problem: &str) {
        self.link_ended(problem, false);
    }

    /// Records that the relay refused the key, with its reason.
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

    /// Records that there is no link, but another one is tried at once. The displayed state stays
    /// until its outcome is known.
    pub fn link_changes(&self) {
        self.link
            .send_if_modified(|up| std::mem::replace(up, false));
    }

    /// Adds a job and starts it; if it cannot start, it is given back at once.
    pub fn lease(self: &Arc<Self>, head: LeaseHead, body: Body) {
        let token = head.token;
        let asked = ollama::request_head(head.op, &body.0).ok();
        // The relay's own claim does not count: nothing else may run beside the slots.
        let is_urgent = head.op.changes_models() || asked.as_ref().is_some_and(|asked| asked.loads);
        let mut state = self.lock();
        if state.held.contains_key(&token) {
            return;
        }
        // An older lease of the same job is stale.
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
            // Wakes the link, which has another lease to renew.
            self.outgoing.notify_one();
        }
        self.recount();
    }

    /// Adds a lease whose request did not arrive completely, to be given back.
    pub fn lease_without_body(&self, head: LeaseHead) {
        let why = "the connection was lost before the whole request had arrived";
        self.put_down(head, Ending::nack(Retry::Now, ErrorCode::WorkerLost, why));
    }

    /// Adds a lease that was cancelled before its request had arrived, to be given back.
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
            let why = "the owner of the machine does not allow changes of its models; start the \
                       agent with `--allow-model-changes` to allow them";
            return Some(Ending::nack(Retry::Never, ErrorCode::Forbidden, why));
        }
        if head.op.changes_models()
            && !ollama::change_head(head.op, &body.0).is_ok_and(|change| !change.needs_files)
        {
            let why = "models cannot be created from files of this machine, or from uploaded ones";
            return Some(Ending::nack(Retry::Never, ErrorCode::Forbidden, why));
        }
        if state.paused {
            return back(
                ErrorCode::NoWorker,
                "the owner of the machine paused the agent",
            );
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
            return back(ErrorCode::NoWorker, "all slots of the worker are in use");
        }
        if state.held.len() >= limits::HELD_MAX {
            let why = "too many ended jobs are not confirmed yet";
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

    /// Records that the relay confirmed a held lease and has its lines up to `stored`.
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

    /// Gives a job back because the relay has fewer lines than it once acknowledged. The job starts
    /// again, even if it had ended, because its end cannot be sent without them.
    pub fn cannot_continue(&self, token: LeaseToken) {
        let why = "the relay asks for lines that were acknowledged before";
        if let Some(held) = self.lock().held.get_mut(&token) {
            held.give_up(Ending::nack(Retry::Now, ErrorCode::Internal, why));
        }
        self.recount();
        self.outgoing.notify_one();
    }

    /// Whether any held lease waits for the relay's confirmation on this link.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        self.lock().held.values().any(|held| !held.confirmed)
    }

    /// Drops lines up to `n`, which the relay has stored.
    pub fn stored(&self, token: LeaseToken, n: u64) {
        if let Some(held) = self.lock().held.get_mut(&token) {
            held.outbox.stored(n);
            held.room.notify_one();
        }
    }

    /// Sends everything unacknowledged of this lease again, because it did not arrive.
    pub fn rewind(&self, token: LeaseToken) {
        if let Some(held) = self.lock().held.get_mut(&token) {
            held.rewind();
        }
        self.outgoing.notify_one();
    }

    /// Stops the job and gives it back for good, because the requester has cancelled.
    pub fn cancel(&self, token: LeaseToken) {
        self.end(token, withdrawn());
    }

    /// Removes a lease: its end was accepted (`None`), or it was lost. Stops its job if it still
    /// runs.
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

    /// Returns what to send next, job by job in turn, skipping those for which `is_busy` is `true`.
    /// It counts as sent until [`JobTable::rewind`] or [`JobTable::open`].
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

    /// Waits until there may be something new to send.
    pub async fn changed(&self) {
        self.outgoing.notified().await;
    }

    /// Returns the maximum number of concurrent jobs to announce to the relay: the number of slots,
    /// fewer near [`limits::HELD_MAX`], or 0 while not leasing or while unconfirmed answers exceed
    /// [`limits::UNCONFIRMED_MAX`].
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

    /// Returns the number of further jobs that could start now: in slots, and urgent ones beside
    /// them.
    #[must_use]
    pub fn free(&self) -> (u32, u32) {
        let capacity = self.capacity();
        let running = self.lock().running();
        let taken = u32::try_from(running.slots()).unwrap_or(u32::MAX);
        let beside = u32::try_from(running.room_beside()).unwrap_or(0);
        let beside = if capacity == 0 { 0 } else { beside };
        (capacity.saturating_sub(taken), beside)
    }

    /// Returns all held leases.
    #[must_use]
    pub fn held(&self) -> Vec<LeaseToken> {
        self.lock().held.keys().copied().collect()
    }

    /// Returns the leases of running jobs. Those of ended jobs need no renewal; only their end is
    /// sent.
    #[must_use]
    pub fn at_work(&self) -> Vec<LeaseToken> {
        let state = self.lock();
        let running = state.held.iter().filter(|(_, held)| held.is_running());
        running.map(|(token, _)| *token).collect()
    }

    /// Returns the report and its number if it is newer than number `told`; 0 for any.
    #[must_use]
    pub fn report_after(&self, told: u64) -> Option<(u64, WorkerReport)> {
        let state = self.lock();
        (state.report_number != told).then(|| (state.report_number, state.report.clone()))
    }

    /// Returns a newer report if it must be sent before anything of a job.
    #[must_use]
    pub fn report_before(&self, told: u64) -> Option<(u64, WorkerReport)> {
        let is_needed = self.lock().report_hurries > told;
        if is_needed {
            self.report_after(told)
        } else {
            None
        }
    }

    /// Returns the first detail about the engine's models after number `told`, and its own number;
    /// 0 stands for the beginning.
    #[must_use]
    pub fn detail_after(&self, told: u64) -> Option<(u64, Detail)> {
        self.lock().details.after(told)
    }

    /// Returns the leases that were not renewed for `after`, and marks them as renewed.
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

    /// Returns when the next lease must be renewed, if any is held.
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
    let why = "the requester cancelled the job";
    Ending::nack(Retry::Never, ErrorCode::Cancelled, why)
}

impl From<JobError> for Ending {
    fn from(error: JobError) -> Self {
        Self::End(proto::End::Failed { error })
    }
}
