//! Which workers are online, and what they can run.

mod library;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::{
    Account, Detail, ErrorCode, ModelName, Timestamp, WorkerId, WorkerReport,
    admin::{EngineView, ModelView, WorkerCarrier, WorkerView},
};
use queue::{KeyId, ModelPatterns, Models, Serve};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{auth::serves, error::ApiError, offer::Offer, place::together, routing::InLine};
use library::{Known, Library, Told};

/// How long what a worker told is still told of it once it is gone: an hour covers a restart, a
/// nap and a change of networks.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Most workers that are remembered so.
const REMEMBERED_MAX: usize = 1024;
/// Most workers of one key that poll: each name costs what its worker reports.
const POLLERS_MAX: usize = 256;

/// What a worker is known by while it is online.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seat {
    /// One connection.
    Socket(u64),
    /// One worker that polls, by its key and name.
    Poll(String, WorkerId),
}

/// A worker that is online.
#[derive(Debug, Clone)]
pub(crate) struct Online {
    pub(crate) key: Option<KeyId>,
    pub(crate) serve: Serve,
    /// Which models its key allows it.
    pub(crate) within: ModelPatterns,
    /// `None` for a worker of an older system: taken to run any model.
    pub(crate) report: Option<Arc<WorkerReport>>,
    /// When it is taken for gone unless it polls again; `None` while it is connected.
    pub(crate) until: Option<Timestamp>,
    /// Ends its held poll: a newer one came.
    pub(crate) poll: Option<CancellationToken>,
    /// Its connection, if it has one of its own.
    pub(crate) link: Option<Link>,
}

/// A connection as other connections see it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) worker: WorkerId,
    pub(crate) doubt: Arc<Doubt>,
    /// Where it stands among those with room for a job.
    pub(crate) in_line: Arc<InLine>,
}

/// Whether a connection may be dead: its worker came again, and nothing was heard here since.
/// Jobs given to a dead one are lost until their lease ends, so it gets none meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Doubt(AtomicBool);

impl Doubt {
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Something was heard; whether that was in doubt.
    pub(crate) fn settle(&self) -> bool {
        self.is_raised() && self.0.swap(false, Ordering::SeqCst)
    }
}

/// A worker, by its key and its name.
type Person = (String, WorkerId);

#[derive(Debug, Default)]
struct Seats {
    online: BTreeMap<Seat, (Online, Told)>,
    /// Where those of a name sit: thousands come and go at once, and each looks for its own.
    named: HashMap<WorkerId, BTreeSet<Seat>>,
    gone: BTreeMap<Person, Known>,
}

/// The workers online now, and those that were a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    seats: Mutex<Seats>,
    last: AtomicU64,
    changes: watch::Sender<u64>,
}

fn person(seat: &Seat, online: &Online) -> Option<Person> {
    let worker = name(seat, online)?;
    Some((online.key.clone().unwrap_or_default(), worker.clone()))
}

fn is_person((key, worker): &Person, seat: &Seat, online: &Online) -> bool {
    name(seat, online) == Some(worker) && online.key.as_deref().unwrap_or_default() == key
}

fn name<'a>(seat: &'a Seat, online: &'a Online) -> Option<&'a WorkerId> {
    match seat {
        Seat::Poll(_, worker) => Some(worker),
        Seat::Socket(_) => Some(&online.link.as_ref()?.worker),
    }
}

impl Seats {
    /// Somebody sits where nobody does.
    fn put(&mut self, seat: Seat, online: Online, told: Told) {
        if let Some(worker) = name(&seat, &online).cloned() {
            self.named.entry(worker).or_default().insert(seat.clone());
        }
        self.online.insert(seat, (online, told));
    }

    /// Nobody sits there any more.
    fn take(&mut self, seat: &Seat) -> Option<(Online, Told)> {
        let (online, told) = self.online.remove(seat)?;
        if let Some(worker) = name(seat, &online)
            && let Some(seats) = self.named.get_mut(worker)
        {
            seats.remove(seat);
            if seats.is_empty() {
                self.named.remove(worker);
            }
        }
        Some((online, told))
    }

    /// Those of a name, the latest connection last.
    fn of_name(
        &self,
        worker: &WorkerId,
    ) -> impl DoubleEndedIterator<Item = (&Seat, &(Online, Told))> {
        let seats = self.named.get(worker).into_iter().flatten();
        seats.filter_map(|seat| Some((seat, self.online.get(seat)?)))
    }

    /// Somebody is not online any more; what he told is remembered for a while.
    fn leave(&mut self, seat: &Seat, now: Timestamp) {
        let Some((online, mut told)) = self.take(seat) else {
            return;
        };
        let polled = told.seen.filter(|_| online.link.is_none());
        told.seen = polled.or(Some(now));
        let (Some(report), Some(who)) = (online.report.clone(), person(seat, &online)) else {
            return;
        };
        if self.seat_of(&who).is_some() {
            return;
        }
        self.gone.retain(|_, known| known.until > now);
        if self.gone.len() < REMEMBERED_MAX {
            let known = Known {
                serve: online.serve,
                report,
                told,
                until: now + REMEMBERED,
            };
            self.gone.insert(who, known);
        }
    }

    /// How many poll with the key of this one, if it is one that polls.
    fn pollers(&self, seat: &Seat) -> usize {
        let Seat::Poll(key, _) = seat else {
            return 0;
        };
        let is_same = |seat: &Seat| matches!(seat, Seat::Poll(other, _) if other == key);
        self.online.keys().filter(|seat| is_same(seat)).count()
    }

    /// What somebody who is online told, by his latest connection.
    fn seat_of(&self, who: &Person) -> Option<&(Online, Told)> {
        let mut online = self.of_name(&who.1).rev();
        let found = online.find(|(seat, (online, _))| is_person(who, seat, online));
        found.map(|(_, seated)| seated)
    }

    /// Those that polled last too long ago leave.
    fn settle(&mut self, now: Timestamp) {
        let is_over = |online: &Online| online.until.is_some_and(|until| until <= now);
        let over = self
            .online
            .iter()
            .filter(|(_, (online, _))| is_over(online));
        let over: Vec<Seat> = over.map(|(seat, _)| seat.clone()).collect();
        for seat in over {
            self.leave(&seat, now);
        }
        self.gone.retain(|_, known| known.until > now);
    }
}

/// A report as it is kept: an engine that is down cannot list its models, yet has them.
fn kept(new: Arc<WorkerReport>, old: Option<&Arc<WorkerReport>>) -> Arc<WorkerReport> {
    match old {
        Some(old) if !new.engine_up && new.models.is_empty() => Arc::new(WorkerReport {
            models: old.models.clone(),
            ..WorkerReport::clone(&new)
        }),
        Some(_) | None => new,
    }
}

fn view(
    (key, name): &Person,
    report: Option<&WorkerReport>,
    carrier: Option<WorkerCarrier>,
    told: &Told,
    last_seen: Timestamp,
) -> WorkerView {
    let models = report.map_or(&[][..], |report| &report.models);
    WorkerView {
        name: name.clone(),
        key: Some(key.clone()).filter(|key| !key.is_empty()),
        online: carrier.is_some(),
        carrier,
        last_seen,
        engine: report.map(|report| EngineView {
            kind: report.engine,
            version: report.engine_version.clone(),
            up: report.engine_up,
        }),
        models: models
            .iter()
            .map(|model| ModelView {
                name: model.name.clone(),
                loaded: model.loaded,
            })
            .collect(),
        slots: told.slots.filter(|_| carrier.is_some()),
        running: 0,
    }
}

impl Workers {
    /// A seat for a new connection.
    pub(crate) fn seat(&self) -> Seat {
        Seat::Socket(self.last.fetch_add(1, Ordering::Relaxed))
    }

    /// How many are online on a connection of their own, and how many by polling.
    pub(crate) fn count(&self, now: Timestamp) -> (usize, usize) {
        let seats = self.lock();
        let is_there = |online: &Online| online.until.is_none_or(|until| until > now);
        let there = seats.online.iter();
        let there = there.filter(|(_, (online, _))| is_there(online));
        let (sockets, polls): (Vec<_>, Vec<_>) =
            there.partition(|(seat, _)| matches!(seat, Seat::Socket(_)));
        (sockets.len(), polls.len())
    }

    /// Whether a worker may begin to poll.
    ///
    /// # Errors
    /// [`ErrorCode::RateLimited`], if too many poll with its key already.
    pub(crate) fn admit(&self, seat: &Seat, now: Timestamp) -> Result<(), ApiError> {
        let mut seats = self.lock();
        seats.settle(now);
        if seats.online.contains_key(seat) || seats.pollers(seat) < POLLERS_MAX {
            return Ok(());
        }
        let message = format!(
            "{POLLERS_MAX} workers poll with this key already; give each worker a name that \
             stays, or some of them another key"
        );
        Err(ApiError::new(ErrorCode::RateLimited, message))
    }

    /// A worker is online now; what it told before still holds until it says otherwise.
    pub(crate) fn sit(&self, seat: Seat, mut online: Online) {
        let mut seats = self.lock();
        let mut before = seats.take(&seat).map(|(old, told)| {
            if let Some(poll) = &old.poll {
                poll.cancel();
            }
            (old.report, told)
        });
        if let Some(who) = person(&seat, &online) {
            let gone = seats.gone.remove(&who);
            let other = || {
                let (other, told) = seats.seat_of(&who)?;
                Some((other.report.clone(), told.clone()))
            };
            before = before
                .or_else(other)
                .or_else(|| gone.map(|gone| (Some(gone.report), gone.told)));
        }
        let (report, mut told) = before.unwrap_or_default();
        online.report = online.report.map(|new| kept(new, report.as_ref()));
        if let Some(now) = &online.report {
            told.keep(now, report.as_deref());
        }
        seats.put(seat, online, told);
        drop(seats);
        self.changed();
    }

    /// A worker came: its connections from before are in doubt. They are not ended, as two
    /// workers may share a key and a name.
    pub(crate) fn doubt_older(&self, key: Option<&KeyId>, worker: &WorkerId) {
        let seats = self.lock();
        for (_, (online, _)) in seats.of_name(worker) {
            if let Some(link) = &online.link
                && online.key.as_ref() == key
            {
                link.doubt.0.store(true, Ordering::SeqCst);
                link.in_line.leave();
            }
        }
    }

    pub(crate) fn leave(&self, seat: &Seat, now: Timestamp) {
        self.lock().leave(seat, now);
        self.changed();
    }

    /// A worker whose key is good no more is not remembered.
    pub(crate) fn dismiss(&self, seat: &Seat) {
        self.lock().take(seat);
        self.changed();
    }

    /// A worker said how many jobs it runs at once.
    pub(crate) fn capacity(&self, seat: &Seat, slots: u32) {
        if let Some((_, told)) = self.lock().online.get_mut(seat) {
            told.slots = Some(slots);
        }
        self.changed();
    }

    /// A worker that polls was heard.
    pub(crate) fn seen(&self, seat: &Seat, now: Timestamp, slots: Option<u32>) {
        if let Some((_, told)) = self.lock().online.get_mut(seat) {
            told.seen = Some(now);
            told.slots = slots;
        }
        self.changed();
    }

    /// Changes whenever [`Workers::told`] may.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        if !self.changes.is_closed() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Who is here and who was a moment ago, for an operator.
    pub(crate) fn told(&self, now: Timestamp) -> Vec<WorkerView> {
        let mut seats = self.lock();
        seats.settle(now);
        let gone = seats.gone.iter().map(|(who, known)| {
            let seen = known.told.seen.unwrap_or(now);
            let report = Some(&*known.report);
            (who.clone(), view(who, report, None, &known.told, seen))
        });
        let here = seats.online.iter().filter_map(|(seat, (online, told))| {
            let who = person(seat, online)?;
            let carrier = match (seat, &online.report) {
                (Seat::Socket(_), _) => WorkerCarrier::Websocket,
                (Seat::Poll(..), Some(_)) => WorkerCarrier::Http,
                (Seat::Poll(..), None) => WorkerCarrier::Legacy,
            };
            let seen = told.seen.filter(|_| online.link.is_none()).unwrap_or(now);
            let report = online.report.as_deref();
            let view = view(&who, report, Some(carrier), told, seen);
            Some((who, view))
        });
        // Whoever came again is told of once, as he is now.
        let all: BTreeMap<Person, WorkerView> = gone.chain(here).collect();
        all.into_values().collect()
    }

    /// A worker that polls was heard of, and its poll before is over; answers its report, `None`
    /// if it is not known.
    pub(crate) fn heard(
        &self,
        seat: &Seat,
        until: Timestamp,
        poll: CancellationToken,
    ) -> Option<Arc<WorkerReport>> {
        let mut seats = self.lock();
        let (worker, _) = seats.online.get_mut(seat)?;
        if let Some(older) = worker.poll.replace(poll) {
            older.cancel();
        }
        worker.until = worker.until.map(|had| had.max(until));
        worker.report.clone()
    }

    pub(crate) fn report(&self, seat: &Seat, report: Arc<WorkerReport>) {
        if let Some((worker, told)) = self.lock().online.get_mut(seat) {
            let report = kept(report, worker.report.as_ref());
            told.keep(&report, worker.report.as_deref());
            worker.report = Some(report);
        }
        self.changed();
    }

    /// A poll that is held is over: what it might still be given would wait for nobody.
    pub(crate) fn end_poll(&self, seat: &Seat) {
        if let Some((worker, _)) = self.lock().online.get_mut(seat)
            && let Some(poll) = worker.poll.take()
        {
            poll.cancel();
        }
    }

    /// A worker told more of its engine; false if it is not known.
    pub(crate) fn tell(&self, seat: &Seat, details: Vec<Detail>) -> bool {
        let mut seats = self.lock();
        let Some((online, told)) = seats.online.get_mut(seat) else {
            return false;
        };
        if let Some(report) = &online.report {
            for detail in details {
                told.take(detail, report);
            }
        }
        true
    }

    /// What the workers online now can do for an account, in the order they came; or only those
    /// of one name.
    pub(crate) fn offer(
        &self,
        account: &Account,
        only: Option<&WorkerId>,
        now: Timestamp,
    ) -> Offer {
        let mut seats = self.lock();
        seats.settle(now);
        let mut offer = Offer::default();
        let is_it =
            |seat: &Seat, online: &Online| only.is_none_or(|only| name(seat, online) == Some(only));
        let online = seats.online.iter();
        let online = online.filter(|(seat, (online, _))| is_it(seat, online));
        let online = online.map(|(_, (online, _))| online);
        for worker in online.filter(|online| serves(&online.serve, account)) {
            match &worker.report {
                None => offer.any.push(worker.within.clone()),
                Some(report) if report.engine_up => offer.reports.push(report.clone()),
                Some(report) => offer.down.push(report.clone()),
            }
        }
        offer
    }

    /// Whose jobs and which models the workers online serve together that may be lent a job of
    /// this account and model.
    pub(crate) fn line(
        &self,
        account: &Account,
        model: &ModelName,
        now: Timestamp,
    ) -> (Serve, Models) {
        let mut seats = self.lock();
        seats.settle(now);
        let online = seats.online.values().map(|(online, _)| online);
        let workers = online.filter(|worker| worker.serve.includes(account));
        let workers = workers.filter_map(|worker| {
            let models = match &worker.report {
                None => Models::Any,
                Some(report) if report.engine_up => {
                    Models::Only(report.models.iter().map(|m| m.name.clone()).collect())
                }
                Some(_) => return None,
            };
            let runs = match &models {
                Models::Any | Models::AnyBut(_) => worker.within.allow(model),
                Models::AnyForQueries => false,
                Models::Only(names) | Models::OnlyUrgent(names) => {
                    names.iter().any(|name| name.is_same(model))
                }
            };
            runs.then(|| (worker.serve.clone(), models))
        });
        together(account, model, workers)
    }

    /// What is known of the engines that serve an account: those that are up, those that are
    /// down, and those whose worker went a moment ago.
    pub(crate) fn library(&self, account: &Account, now: Timestamp) -> Library {
        let mut seats = self.lock();
        seats.settle(now);
        let here = seats.online.values().filter_map(|(online, told)| {
            Some(Known {
                serve: online.serve.clone(),
                report: online.report.clone()?,
                told: told.clone(),
                until: now,
            })
        });
        let (up, down): (Vec<Known>, Vec<Known>) = here
            .filter(|known| serves(&known.serve, account))
            .partition(|known| known.report.engine_up);
        let gone = seats.gone.values().cloned();
        let gone = gone.filter(|known| serves(&known.serve, account));
        Library::new(up.into_iter().chain(down).chain(gone).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str) -> WorkerId {
        WorkerId::new(name).unwrap()
    }

    fn online(key: &str, name: &str) -> Online {
        Online {
            key: Some(key.to_owned()),
            serve: Serve::All,
            within: ModelPatterns::default(),
            report: None,
            until: None,
            poll: None,
            link: Some(Link {
                worker: worker(name),
                doubt: Arc::default(),
                in_line: Arc::new(crate::routing::Routing::default().enter()),
            }),
        }
    }

    #[test]
    fn those_of_a_name_are_found_while_they_sit_and_by_nobody_else() {
        let workers = Workers::default();
        let seats: [Seat; 3] = std::array::from_fn(|_| workers.seat());
        let whose = [("k", "a"), ("other", "a"), ("k", "b")];
        for (seat, (key, name)) in seats.iter().zip(whose) {
            workers.sit(seat.clone(), online(key, name));
        }
        let poll = Seat::Poll("k".to_owned(), worker("a"));
        let polling = Online {
            link: None,
            ..online("k", "a")
        };
        workers.sit(poll.clone(), polling);
        let sits = |key: &str, name: &str| {
            let who = (key.to_owned(), worker(name));
            workers.lock().seat_of(&who).is_some()
        };
        assert!(whose.iter().all(|(key, name)| sits(key, name)));
        assert!(!sits("other", "b"));

        workers.doubt_older(Some(&"k".to_owned()), &worker("a"));
        let in_doubt = |seat: &Seat| {
            let seats = workers.lock();
            let link = seats.online.get(seat).and_then(|(o, _)| o.link.clone());
            link.is_some_and(|link| link.doubt.is_raised())
        };
        assert_eq!(seats.each_ref().map(in_doubt), [true, false, false]);

        workers.leave(&seats[0], Timestamp(1));
        assert!(sits("k", "a"), "it polls still");
        workers.dismiss(&poll);
        assert!(!sits("k", "a") && sits("other", "a"));
        workers.leave(&seats[1], Timestamp(1));
        workers.leave(&seats[2], Timestamp(1));
        let seats = workers.lock();
        assert!(seats.named.is_empty() && seats.online.is_empty());
    }
}
