//! Other local programs that publish fields of the status, and the commands that concern them.

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

/// Maximum number of commands in flight to one publisher.
pub(crate) const PUBLISHER_COMMANDS_MAX: usize = 8;

/// A command for a publisher.
#[derive(Debug)]
pub(crate) struct PublisherCommand {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// A message from the hub to a publisher.
#[derive(Debug)]
pub(crate) enum Note {
    /// A command to carry out and answer.
    Do(PublisherCommand),
    /// Another publisher took over these fields.
    Taken { fields: Vec<Field>, by: String },
}

/// The fields that one publisher holds, with their values.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    by: u64,
    name: String,
    fields: Published,
    origin: Option<String>,
    stale: bool,
    notes: mpsc::Sender<Note>,
}

/// The agent's status with the fields of all publishers.
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

/// A registered publisher; its fields are released when this is dropped.
#[derive(Debug)]
pub(crate) struct PublisherSlot {
    hub: StatusHub,
    by: u64,
    name: String,
    origin: Option<String>,
    sender: mpsc::Sender<Note>,
    pub(crate) notes: mpsc::Receiver<Note>,
    /// Commands that were sent and not answered yet, by their number.
    open: HashMap<String, (oneshot::Sender<Answer>, Instant)>,
    count: u64,
}

impl PublisherSlot {
    pub(crate) fn new(hub: StatusHub, by: u64, name: String) -> Self {
        let (sender, notes) = mpsc::channel(PUBLISHER_COMMANDS_MAX);
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

    /// Marks the publisher as a program that the hub reads from `origin`, instead of one that
    /// connected.
    pub(crate) fn read_from(mut self, origin: String) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Signals each change of the hub's status.
    pub(crate) fn shown(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.hub.subscribe()
    }

    /// Marks the publisher's fields as possibly outdated, or as current again.
    pub(crate) fn set_stale(&self, stale: bool) {
        self.hub.change_claims(|claims| {
            let own = claims.iter_mut().find(|claim| claim.by == self.by);
            own.is_some_and(|own| std::mem::replace(&mut own.stale, stale) != stale)
        });
    }

    /// Changes the fields of this publisher. Fields of a publisher that the hub reads from
    /// elsewhere give way to those of one that connected.
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
                    // The notes are bounded; a publisher that misses one sees the change in
                    // `publishers`.
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

    /// Registers a command that was sent, and returns its number.
    pub(crate) fn open(
        &mut self,
        answer: oneshot::Sender<Answer>,
        until: Instant,
    ) -> Option<String> {
        if self.open.len() >= PUBLISHER_COMMANDS_MAX {
            let message = "the speaking program has too many pending commands";
            let _ = answer.send(Err((ErrorCode::RateLimited, message.to_owned())));
            return None;
        }
        self.count += 1;
        let id = self.count.to_string();
        self.open.insert(id.clone(), (answer, until));
        Some(id)
    }

    /// Passes the publisher's answer on; returns whether there was such a command.
    pub(crate) fn settle(&mut self, id: &str, answer: Answer) -> bool {
        let open = self.open.remove(id);
        open.is_some_and(|(sender, _)| sender.send(answer).is_ok())
    }

    /// The deadline of the oldest unanswered command.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.open.values().map(|(_, until)| *until).min()
    }

    /// Fails the commands whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Instant) {
        let late = self.open.extract_if(|_, (_, until)| *until <= now);
        for (_, (answer, _)) in late {
            let message = "the speaking program did not respond in time";
            let _ = answer.send(Err((ErrorCode::DeadlineExceeded, message.to_owned())));
        }
    }
}

impl Drop for PublisherSlot {
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
            if let Note::Do(request) = note {
                let _ = request.answer.send(gone());
            }
        }
    }
}

/// Sends a voice command to the publisher it concerns, which will answer it.
pub(crate) fn pass_on(claims: &[Claim], request: PublisherCommand) {
    let nobody = |request: PublisherCommand, message: &str| {
        let _ = request
            .answer
            .send(Err((ErrorCode::NothingToDo, message.to_owned())));
    };
    let holder = claims
        .iter()
        .find(|claim| claim.fields.holds(Field::IsSpeaking));
    let Some(holder) = holder else {
        return nobody(request, "nobody is speaking");
    };
    let is_silent = holder.fields.is_speaking != Some(Some(true));
    if is_silent && request.command == Command::StopTts {
        return nobody(request, "nobody is speaking");
    }
    if let Err(error) = holder.notes.try_send(Note::Do(request)) {
        let (mpsc::error::TrySendError::Full(note) | mpsc::error::TrySendError::Closed(note)) =
            error;
        if let Note::Do(request) = note {
            nobody(request, "the speaking program is not reading commands");
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
        let read = PublisherSlot::new(hub.clone(), 1, "assistant".into()).read_from("port".into());
        let says = says(Some(true), Some(false));
        read.publish(&says, false).unwrap();
        let before = hub.latest();
        read.publish(&says, false).unwrap();
        read.set_stale(false);
        assert!(Arc::ptr_eq(&before, &hub.latest()));
        read.set_stale(true);
        assert!(hub.latest().status().publishers[0].stale);
    }

    #[test]
    fn what_is_read_gives_way_field_by_field_and_goes_on_with_the_rest() {
        let hub = StatusHub::default();
        let shown = || {
            let status = hub.latest().status().clone();
            (status.is_listening, status.is_speaking)
        };
        let read = PublisherSlot::new(hub.clone(), 1, "assistant".into()).read_from("port".into());
        read.publish(&says(Some(true), Some(false)), false).unwrap();
        let came = PublisherSlot::new(hub.clone(), 2, "speaker".into());
        came.publish(&says(None, Some(true)), false)
            .expect("it needs no takeover from what is merely read");
        assert_eq!(shown(), (true, true));
        read.publish(&says(Some(false), Some(false)), false)
            .unwrap();
        assert_eq!(shown(), (false, true), "the rest is not frozen");
        let third = PublisherSlot::new(hub.clone(), 3, "other".into());
        let refused = third.publish(&says(None, Some(false)), false).unwrap_err();
        assert_eq!(refused.0, ErrorCode::FieldTaken);
        drop(came);
        read.publish(&says(Some(true), Some(true)), false).unwrap();
        assert_eq!(shown(), (true, true), "nobody else says it any more");
    }
}
