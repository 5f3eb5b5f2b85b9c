//! Who sits where: by seat, by name, and those that went a while ago.

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

/// How long what a worker told is still told of it once it is gone: an hour covers a restart, a
/// nap and a change of networks.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Most workers that are remembered so, of one key and of all.
const REMEMBERED_OF_KEY_MAX: usize = POLLERS_MAX;
const REMEMBERED_MAX: usize = 1024;

/// A worker, by its key and its name.
pub(super) type Person = (String, WorkerId);

#[derive(Debug, Default)]
pub(super) struct Seats {
    pub(super) online: BTreeMap<Seat, (Online, Told)>,
    /// Where those of a name sit: thousands come and go at once, and each looks for its own.
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
    /// Somebody sits where nobody does.
    pub(super) fn put(&mut self, seat: Seat, online: Online, told: Told) {
        if let Some(worker) = name(&seat, &online).cloned() {
            self.named.entry(worker).or_default().insert(seat.clone());
        }
        self.online.insert(seat, (online, told));
    }

    /// Nobody sits there any more.
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

    /// Those of a name, the latest connection last.
    pub(super) fn of_name(
        &self,
        worker: &WorkerId,
    ) -> impl DoubleEndedIterator<Item = (&Seat, &(Online, Told))> {
        let seats = self.named.get(worker).into_iter().flatten();
        seats.filter_map(|seat| Some((seat, self.online.get(seat)?)))
    }

    /// Somebody is not online any more; what he told is remembered for a while.
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

    /// Forgets who went first, of this key or of all; whether there was anybody.
    fn forget_first(&mut self, of: Full, key: &str) -> bool {
        let gone = self.gone.iter();
        let gone = gone.filter(|((other, _), _)| of == Full::All || other == key);
        let first = gone.min_by_key(|(_, gone)| gone.until);
        let first = first.map(|(who, _)| who.clone());
        first.is_some_and(|who| self.gone.remove(&who).is_some())
    }

    /// Somebody told more. Who is here comes before those that went.
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

    /// How many poll with the key of this one, if it is one that polls.
    pub(super) fn pollers(&self, seat: &Seat) -> usize {
        let Seat::Poll(key, _) = seat else {
            return 0;
        };
        let is_same = |seat: &Seat| matches!(seat, Seat::Poll(other, _) if other == key);
        self.online.keys().filter(|seat| is_same(seat)).count()
    }

    /// What somebody who is online told, by his latest connection.
    pub(super) fn seat_of(&self, who: &Person) -> Option<&(Online, Told)> {
        let mut online = self.of_name(&who.1).rev();
        let found = online.find(|(seat, (online, _))| is_person(who, seat, online));
        found.map(|(_, seated)| seated)
    }

    /// Those that polled last too long ago leave.
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
