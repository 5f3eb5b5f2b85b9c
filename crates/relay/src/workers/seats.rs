//! Who sits where: by seat, by name, and those that went a while ago.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use proto::{Timestamp, WorkerId};

use super::{
    Online, Seat,
    library::{Known, Told},
};

/// How long what a worker told is still told of it once it is gone: an hour covers a restart, a
/// nap and a change of networks.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Most workers that are remembered so.
const REMEMBERED_MAX: usize = 1024;

/// A worker, by its key and its name.
pub(super) type Person = (String, WorkerId);

#[derive(Debug, Default)]
pub(super) struct Seats {
    pub(super) online: BTreeMap<Seat, (Online, Told)>,
    /// Where those of a name sit: thousands come and go at once, and each looks for its own.
    pub(super) named: HashMap<WorkerId, BTreeSet<Seat>>,
    pub(super) gone: BTreeMap<Person, Known>,
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
        self.gone.retain(|_, known| known.until > now);
    }
}
