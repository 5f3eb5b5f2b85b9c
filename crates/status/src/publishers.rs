//! Other local programs that publish fields of their own, and the commands that concern them.

use std::{collections::HashMap, sync::Arc};

use proto::{
    ErrorCode,
    status::{
        Command, Publisher, Status,
        v1::{Field, Published},
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{Answer, Snapshot, StatusHub};

/// Commands on their way to one publisher at once.
pub(crate) const ERRANDS: usize = 8;

/// A command for a publisher.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What the hub tells a publisher.
#[derive(Debug)]
pub(crate) enum Note {
    /// Do this, and answer.
    Do(Errand),
    /// These are another's now.
    Taken { fields: Vec<Field>, by: String },
}

/// Which fields one publisher holds, and what it says they are.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    by: u64,
    name: String,
    fields: Published,
    origin: Option<String>,
    stale: bool,
    notes: mpsc::Sender<Note>,
}

/// What all publishers say, laid over the agent's own status.
pub(crate) fn merge(base: &Status, claims: &[Claim]) -> Status {
    let mut status = base.clone();
    for claim in claims {
        claim.fields.show_on(&mut status);
    }
    let view = |claim: &Claim| Publisher {
        name: claim.name.clone(),
        fields: claim
            .fields
            .held()
            .map(|field| field.as_str().to_owned())
            .collect(),
        origin: claim.origin.clone(),
        stale: claim.stale,
    };
    status.publishers = claims.iter().map(view).collect();
    status
}

/// One publisher's seat at the hub; whatever it holds is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    hub: StatusHub,
    by: u64,
    name: String,
    origin: Option<String>,
    sender: mpsc::Sender<Note>,
    pub(crate) notes: mpsc::Receiver<Note>,
    /// Commands that were passed on and not answered, by the number each was given.
    open: HashMap<String, (oneshot::Sender<Answer>, Instant)>,
    count: u64,
}

impl Seat {
    pub(crate) fn new(hub: StatusHub, by: u64, name: String) -> Self {
        let (sender, notes) = mpsc::channel(ERRANDS);
        Self {
            hub,
            by,
            name,
            origin: None,
            sender,
            notes,
            open: HashMap::new(),
            count: 0,
        }
    }

    /// The seat of a program that is read from there, and did not come itself.
    pub(crate) fn read_from(mut self, origin: String) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Rings when the hub shows anything new.
    pub(crate) fn shown(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.hub.subscribe()
    }

    /// Whether what it said last may be wrong by now.
    pub(crate) fn doubt(&self, stale: bool) {
        self.hub.change_claims(|claims| {
            let own = claims.iter_mut().find(|claim| claim.by == self.by);
            own.is_some_and(|own| std::mem::replace(&mut own.stale, stale) != stale)
        });
    }

    /// Changes what this publisher says. What is merely read gives way to whoever came himself and
    /// says it too, and takes nothing from him.
    pub(crate) fn publish(&self, fields: &Published, takeover: bool) -> Answer {
        let mut answer = Ok(());
        self.hub.change_claims(|claims| {
            let others = claims.iter().filter(|claim| claim.by != self.by);
            let mut left = fields.clone();
            if self.origin.is_some() {
                for claim in others.clone() {
                    left.give_up(&claim.fields);
                }
            }
            let fields = &left;
            let came = others.filter(|claim| claim.origin.is_none());
            let wanted = |claim: &&Claim| claim.fields.held().any(|field| fields.holds(field));
            if let Some(holder) = came.clone().find(wanted).filter(|_| !takeover) {
                answer = Err((
                    ErrorCode::FieldTaken,
                    format!(
                        "{:?} publishes one of these fields; send `\"takeover\":true` to take it",
                        holder.name
                    ),
                ));
                return false;
            }
            let mut is_new = false;
            for claim in claims.iter_mut().filter(|claim| claim.by != self.by) {
                let taken = claim.fields.give_up(fields);
                if !taken.is_empty() {
                    is_new = true;
                    let by = self.name.clone();
                    // A publisher that lets its notes pile up learns it from `publishers`.
                    let _ = claim.notes.try_send(Note::Taken { fields: taken, by });
                }
            }
            if let Some(own) = claims.iter_mut().find(|claim| claim.by == self.by) {
                let before = own.fields.clone();
                own.fields.write(fields);
                is_new |= own.fields != before;
            } else if fields.held().next().is_some() {
                is_new = true;
                let mut own = Published::default();
                own.write(fields);
                claims.push(Claim {
                    by: self.by,
                    name: self.name.clone(),
                    fields: own,
                    origin: self.origin.clone(),
                    stale: false,
                    notes: self.sender.clone(),
                });
            }
            claims.retain(|claim| claim.fields.held().next().is_some());
            is_new
        });
        answer
    }

    /// Notes that a command was passed on; its number.
    pub(crate) fn open(
        &mut self,
        answer: oneshot::Sender<Answer>,
        until: Instant,
    ) -> Option<String> {
        if self.open.len() >= ERRANDS {
            let message = "the speaking program has too many pending commands";
            let _ = answer.send(Err((ErrorCode::RateLimited, message.to_owned())));
            return None;
        }
        self.count += 1;
        let id = self.count.to_string();
        self.open.insert(id.clone(), (answer, until));
        Some(id)
    }

    /// The publisher answered; whether there was such a command.
    pub(crate) fn settle(&mut self, id: &str, answer: Answer) -> bool {
        let open = self.open.remove(id);
        open.is_some_and(|(sender, _)| sender.send(answer).is_ok())
    }

    /// When the first command that is not answered is given up.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.open.values().map(|(_, until)| *until).min()
    }

    /// Gives up what was not answered in time.
    pub(crate) fn expire(&mut self, now: Instant) {
        let late = self.open.extract_if(|_, (_, until)| *until <= now);
        for (_, (answer, _)) in late {
            let message = "the speaking program did not respond in time";
            let _ = answer.send(Err((ErrorCode::DeadlineExceeded, message.to_owned())));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.change_claims(|claims| {
            let before = claims.len();
            claims.retain(|claim| claim.by != self.by);
            claims.len() != before
        });
        let gone = || {
            Err((
                ErrorCode::NothingToDo,
                "the speaking program has disconnected".to_owned(),
            ))
        };
        for (_, (answer, _)) in self.open.drain() {
            let _ = answer.send(gone());
        }
        self.notes.close();
        while let Ok(note) = self.notes.try_recv() {
            if let Note::Do(errand) = note {
                let _ = errand.answer.send(gone());
            }
        }
    }
}

/// Passes a command of the voice on to whoever it concerns, who will answer it.
pub(crate) fn pass_on(claims: &[Claim], errand: Errand) {
    let nobody = |errand: Errand, message: &str| {
        let _ = errand
            .answer
            .send(Err((ErrorCode::NothingToDo, message.to_owned())));
    };
    let holder = claims
        .iter()
        .find(|claim| claim.fields.holds(Field::IsSpeaking));
    let Some(holder) = holder else {
        return nobody(errand, "nobody is speaking");
    };
    let is_silent = holder.fields.is_speaking != Some(Some(true));
    if is_silent && errand.command == Command::StopTts {
        return nobody(errand, "nobody is speaking");
    }
    if let Err(error) = holder.notes.try_send(Note::Do(errand)) {
        let (mpsc::error::TrySendError::Full(note) | mpsc::error::TrySendError::Closed(note)) =
            error;
        if let Note::Do(errand) = note {
            nobody(errand, "the speaking program is not reading commands");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(is_listening: Option<bool>, is_speaking: Option<bool>) -> Published {
        Published {
            is_listening: is_listening.map(Some),
            is_speaking: is_speaking.map(Some),
            ..Published::default()
        }
    }

    #[test]
    fn to_say_the_same_again_makes_nothing_new() {
        let hub = StatusHub::default();
        let read = Seat::new(hub.clone(), 1, "assistant".into()).read_from("port".into());
        let says = says(Some(true), Some(false));
        read.publish(&says, false).unwrap();
        let before = hub.latest();
        read.publish(&says, false).unwrap();
        read.doubt(false);
        assert!(Arc::ptr_eq(&before, &hub.latest()));
        read.doubt(true);
        assert!(hub.latest().status().publishers[0].stale);
    }

    #[test]
    fn what_is_read_gives_way_field_by_field_and_goes_on_with_the_rest() {
        let hub = StatusHub::default();
        let shown = || {
            let status = hub.latest().status().clone();
            (status.is_listening, status.is_speaking)
        };
        let read = Seat::new(hub.clone(), 1, "assistant".into()).read_from("port".into());
        read.publish(&says(Some(true), Some(false)), false).unwrap();
        let came = Seat::new(hub.clone(), 2, "speaker".into());
        came.publish(&says(None, Some(true)), false)
            .expect("it needs no takeover from what is merely read");
        assert_eq!(shown(), (true, true));
        read.publish(&says(Some(false), Some(false)), false)
            .unwrap();
        assert_eq!(shown(), (false, true), "the rest is not frozen");
        let third = Seat::new(hub.clone(), 3, "other".into());
        let refused = third.publish(&says(None, Some(false)), false).unwrap_err();
        assert_eq!(refused.0, ErrorCode::FieldTaken);
        drop(came);
        read.publish(&says(Some(true), Some(true)), false).unwrap();
        assert_eq!(shown(), (true, true), "nobody else says it any more");
    }
}
