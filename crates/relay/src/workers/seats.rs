//! Index of workers: online ones by id and by name, and those that disconnected recently.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use proto::{Detail, Timestamp, WorkerId};

use super::{
    Online, POLLERS_MAX, Seat,
    library::{Gone, Told},
    room::{Full, Rooms},
};

/// Retention of a worker's information after it has disconnected. An hour covers a restart, a
/// suspended machine and a change of networks.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Maximum number of disconnected workers that are remembered, of one key and in total.
const REMEMBERED_OF_KEY_MAX: usize = POLLERS_MAX;
const REMEMBERED_MAX: usize = 1024;

/// A worker's key id and name.
pub(super) type Person = (String, WorkerId);

#[derive(Debug, Default)]
pub(super) struct Seats {
    pub(super) online: BTreeMap<Seat, (Online, Told)>,
    /// Ids of the workers of each name, because thousands may reconnect at once and each looks for
    /// its earlier connections.
    pub(super) named: HashMap<WorkerId, BTreeSet<Seat>>,
    pub(super) gone: BTreeMap<Person, Gone>,
    pub(super) rooms: Rooms,
}

pub(super) fn person(seat: &Seat, online: &Online) -> Option<Person> {
    let worker = name(seat, online)?;
    Some((online.key.clone().unwrap_or_default(), worker.clone()))
}

fn is_person((key, worker): &Person, seat: &Seat, online: &Online) -> bool {
    name(seat, online) == Some(worker) && online.key.as_deref().unwrap_or_default() == key
}

pub(super) fn name<'a>(seat: &'a Seat, online: &'a Online) -> Option<&'a WorkerId> {
    match seat {
        Seat::Poll(_, worker) => Some(worker),
        Seat::Socket(_) => Some(&online.link.as_ref()?.worker),
    }
}

impl Seats {
    /// Adds a worker under an id that is not in use.
    pub(super) fn put(&mut self, seat: Seat, online: Online, told: Told) {
        if let Some(worker) = name(&seat, &online).cloned() {
            self.named.entry(worker).or_default().insert(seat.clone());
        }
        self.online.insert(seat, (online, told));
    }

    /// Removes the worker with this id.
    pub(super) fn take(&mut self, seat: &Seat) -> Option<(Online, Told)> {
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

    /// Returns the workers of a name, the latest connection last.
    pub(super) fn of_name(
        &self,
        worker: &WorkerId,
    ) -> impl DoubleEndedIterator<Item = (&Seat, &(Online, Told))> {
        let seats = self.named.get(worker).into_iter().flatten();
        seats.filter_map(|seat| Some((seat, self.online.get(seat)?)))
    }

    /// Marks a worker as disconnected, and remembers its information for a while.
    pub(super) fn leave(&mut self, seat: &Seat, now: Timestamp) {
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
        self.gone.retain(|_, gone| gone.until > now);
        let of_key = self.gone.keys().filter(|(key, _)| *key == who.0).count();
        if of_key >= REMEMBERED_OF_KEY_MAX {
            self.forget_first(Full::Key, &who.0);
        } else if self.gone.len() >= REMEMBERED_MAX {
            self.forget_first(Full::All, &who.0);
        }
        let gone = Gone {
            serve: online.serve,
            report,
            told,
            until: now + REMEMBERED,
        };
        self.gone.insert(who, gone);
    }

    /// Forgets the worker that disconnected first, of this key or of all; returns whether there was
    /// one.
    fn forget_first(&mut self, of: Full, key: &str) -> bool {
        let gone = self.gone.iter();
        let gone = gone.filter(|((other, _), _)| of == Full::All || other == key);
        let first = gone.min_by_key(|(_, gone)| gone.until);
        let first = first.map(|(who, _)| who.clone());
        first.is_some_and(|who| self.gone.remove(&who).is_some())
    }

    /// Stores a detail of a worker. If there is no room, disconnected workers are forgotten first.
    pub(super) fn tell(&mut self, seat: &Seat, detail: Detail) {
        while let Some((online, told)) = self.online.get(seat)
            && let Some(full) = told.full(&detail)
        {
            let key = online.key.clone().unwrap_or_default();
            if !self.forget_first(full, &key) {
                break;
            }
        }
        if let Some((online, told)) = self.online.get_mut(seat)
            && let Some(report) = &online.report
        {
            told.take(detail, report);
        }
    }

    /// Returns the number of polling workers with the key of this id; 0 if the id is not a poll's.
    pub(super) fn pollers(&self, seat: &Seat) -> usize {
        let Seat::Poll(key, _) = seat else {
            return 0;
        };
        let is_same = |seat: &Seat| matches!(seat, Seat::Poll(other, _) if other == key);
        self.online.keys().filter(|seat| is_same(seat)).count()
    }

    /// Returns the latest connection of an online worker.
    pub(super) fn seat_of(&self, who: &Person) -> Option<&(Online, Told)> {
        let mut online = self.of_name(&who.1).rev();
        let found = online.find(|(seat, (online, _))| is_person(who, seat, online));
        found.map(|(_, seated)| seated)
    }

    /// Marks workers as disconnected whose last poll is too long ago.
    pub(super) fn settle(&mut self, now: Timestamp) {
        let is_over = |online: &Online| online.until.is_some_and(|until| until <= now);
        let over = self
            .online
            .iter()
            .filter(|(_, (online, _))| is_over(online));
        let over: Vec<Seat> = over.map(|(seat, _)| seat.clone()).collect();
        for seat in over {
            self.leave(&seat, now);
        }
        self.gone.retain(|_, gone| gone.until > now);
    }
}
