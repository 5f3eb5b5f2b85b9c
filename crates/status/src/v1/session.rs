//! A connection of `hearth.status.v1` after its handshake.

use std::collections::VecDeque;

use proto::{
    ErrorCode,
    status::v1::{Cause, HubMessage, Published, Topic},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::{
    greeting::{Client, identified},
    message::{Asker, Heard, Pairing, read_message, refused},
};
use crate::{
    Answer, Limits, Request, StatusHub, World,
    approvals::Verdict,
    asking::{Outcome, PendingCommand, answered, ask},
    caller::{ApprovalResult, Caller, HeldCommand, decided, denied},
    frames::{Shape, View},
    pipe::{Pipe, ReadingPace},
    publishers::{Note, PublisherCommand, PublisherSlot},
    token_check::Grant,
};

/// Maximum number of messages deferred while the client owes the answer to a command.
const ASIDE: usize = 8;

pub(crate) struct Session<'a> {
    pub(crate) pipe: Pipe,
    pub(crate) client: Client,
    pub(crate) caller: Caller,
    /// The command that waits for the owner's approval.
    pub(crate) held: Option<HeldCommand<Asker>>,
    pub(crate) hub: StatusHub,
    pub(crate) commands: mpsc::Sender<Request>,
    pub(crate) limits: Limits,
    pub(crate) world: &'a World,
    /// Present if the client may publish.
    pub(crate) slot: Option<PublisherSlot>,
}

/// The events of a session.
enum Tick {
    Heard(Option<Result<Message, Error>>),
    Answered(Outcome<Asker>),
    ApprovalResult(ApprovalResult<Asker>),
    Note(Note),
    Late,
    /// A status could not be written at once.
    Called,
    Stop,
}

impl Session<'_> {
    /// Serves the client until it closes, stalls, or the hub stops.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> Result<(), Error> {
        let ended = self.serve(stop).await;
        self.caller.leaves(self.held.take()).await;
        ended
    }

    async fn serve(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let limits = &self.limits;
        let mut pace = ReadingPace::new(limits.burst_v1, limits.per_second, Instant::now());
        let connection = self.pipe.connection.clone();
        let mut asked: Option<PendingCommand<Asker>> = None;
        let mut aside = VecDeque::new();
        self.follow(Cause::First);
        loop {
            // The pending command may be one that this client, as a publisher, has to carry out
            // itself.
            let listens = asked.is_none() || (self.owes_answer() && aside.len() < ASIDE);
            let tick = tokio::select! {
                biased;
                // Before the stop, so that the answer to `quit` is sent.
                answer = answered(&mut asked) => Tick::Answered(answer),
                decision = decided(&mut self.held), if asked.is_none() => Tick::ApprovalResult(decision),
                note = noted(&mut self.slot) => note,
                () = stop.cancelled() => Tick::Stop,
                () = connection.called() => Tick::Called,
                heard = self.pipe.next(pace.from()), if listens => Tick::Heard(heard),
            };
            match tick {
                Tick::Note(note) => self.tell(note).await?,
                Tick::Late => {
                    if let Some(slot) = &mut self.slot {
                        slot.expire(Instant::now());
                    }
                }
                Tick::Answered(outcome) => self.pipe.say(&HubMessage::from(outcome)).await?,
                Tick::ApprovalResult(decision) => asked = self.settle(decision).await?,
                Tick::Heard(Some(Ok(message))) => {
                    pace.count(Instant::now());
                    let heard = read_message(&message);
                    if asked.is_some() && !heard.is_answer() {
                        aside.push_back(heard);
                    } else if let Some(waiting) = self.hear(heard).await? {
                        asked = Some(waiting);
                    }
                }
                Tick::Heard(Some(Err(error))) => return self.pipe.part(error).await,
                Tick::Heard(None) => return Ok(()),
                Tick::Called => self.pipe.catch_up(&self.hub).await?,
                Tick::Stop => return self.pipe.leave(&self.hub).await,
            }
            while asked.is_none()
                && let Some(heard) = aside.pop_front()
            {
                asked = self.hear(heard).await?;
            }
        }
    }

    /// Whether the client has an unanswered command as a publisher.
    fn owes_answer(&self) -> bool {
        self.slot
            .as_ref()
            .is_some_and(|slot| slot.until().is_some())
    }

    /// Shows the client the topics that it subscribed to.
    fn follow(&self, cause: Cause) {
        let topics = &self.client.topics;
        let shape = Shape::V1 {
            with_progress: topics.contains(&Topic::Progress),
        };
        let view = topics.contains(&Topic::Status);
        let view = view.then(|| View::new(shape, cause));
        self.pipe.follow(view, &self.hub);
    }

    /// Sends a note to the publisher.
    async fn tell(&mut self, note: Note) -> Result<(), Error> {
        let message = match note {
            Note::Taken { fields, by } => HubMessage::Taken { fields, by },
            Note::Do(PublisherCommand { command, answer }) => {
                let until = Instant::now() + self.limits.publisher;
                let slot = self.slot.as_mut();
                let Some(id) = slot.and_then(|slot| slot.open(answer, until)) else {
                    return Ok(());
                };
                HubMessage::Request {
                    id,
                    request: command.as_str().to_owned(),
                    args: command.args(),
                }
            }
        };
        self.pipe.say(&message).await
    }

    fn publish(&self, fields: &Published, takeover: bool) -> Answer {
        let Some(slot) = &self.slot else {
            let message = "publishing needs a `name` and a `proof` of the token in `identify`";
            return Err((ErrorCode::Unauthorized, message.to_owned()));
        };
        slot.publish(fields, takeover)
    }

    /// Handles the owner's decision on the pending command.
    async fn settle(
        &mut self,
        decided: ApprovalResult<Asker>,
    ) -> Result<Option<PendingCommand<Asker>>, Error> {
        let approval = decided.approval;
        let asker = Asker {
            approval: Some(approval.clone()),
            ..decided.id
        };
        match decided.verdict {
            Some(Verdict::Once) => {}
            Some(Verdict::Always(grant, token)) => {
                self.client.grant = Grant::Guest(grant);
                let granted = HubMessage::Granted { approval, token };
                if let Err(error) = self.pipe.say(&granted).await {
                    self.caller.take_back(grant).await;
                    return Err(error);
                }
            }
            verdict @ (Some(Verdict::No) | None) => {
                let refused = asker.response(Err(denied(verdict.as_ref())));
                self.pipe.say(&refused).await?;
                return Ok(None);
            }
        }
        match ask(&self.commands, (decided.command, asker), self.limits.answer) {
            Ok(asked) => Ok(Some(asked)),
            Err(refused) => {
                self.pipe.say(&HubMessage::from(refused)).await?;
                Ok(None)
            }
        }
    }

    /// Answers an approval request of one of the owner's programs.
    async fn pair(&self, pairing: Pairing, asker: Asker) -> HubMessage {
        let approvals = self.caller.approvals.as_ref();
        let Some(approvals) = approvals.filter(|_| self.client.grant == Grant::Command) else {
            let message = "only a client that proves the local token may decide for the owner";
            return asker.response(Err((ErrorCode::Unauthorized, message.to_owned())));
        };
        match pairing {
            Pairing::List => {
                let pairs = approvals.pairs().borrow().clone();
                asker.result(serde_json::to_value(&*pairs).unwrap_or_default())
            }
            Pairing::Approve { approval, consent } => {
                asker.response(approvals.approve(&approval, consent).await)
            }
            Pairing::Deny { approval } => asker.response(approvals.deny(&approval)),
            Pairing::Revoke { grant } => asker.response(approvals.revoke(&grant).await),
        }
    }

    async fn hear(&mut self, heard: Heard) -> Result<Option<PendingCommand<Asker>>, Error> {
        let answer = match heard {
            Heard::Command(command, asker) if !self.caller.may_command(self.client.grant) => {
                let (held, name) = (&mut self.held, &self.client.name);
                let asks = (command, asker.clone());
                let (code, message, approval) = self.caller.raise(held, name, asks).await;
                let asker = Asker { approval, ..asker };
                asker.response(Err((code, message)))
            }
            Heard::Pair(pairing, asker) => self.pair(pairing, asker).await,
            Heard::Command(command, asker) => {
                match ask(&self.commands, (command, asker), self.limits.answer) {
                    Ok(asked) => return Ok(Some(asked)),
                    Err(refused) => refused.into(),
                }
            }
            Heard::Ping(asker) => asker.result(self.world.pong(self.hub.latest().status())),
            Heard::Publish {
                asker,
                fields,
                takeover,
            } => asker.response(self.publish(&fields, takeover)),
            Heard::Response { id, answer } => {
                let slot = self.slot.as_mut();
                if slot.is_some_and(|slot| slot.settle(&id, answer)) {
                    return Ok(None);
                }
                let message = "no pending request has this id".to_owned();
                refused(ErrorCode::BadRequest, message)
            }
            Heard::Resubscribe(topics) => {
                self.client.topics = topics;
                // No status in the old format may follow the answer.
                self.pipe.connection.follow(None);
                self.pipe.say(&identified(&self.client, None)).await?;
                self.follow(Cause::Resubscribed);
                return Ok(None);
            }
            Heard::Refuse(answer) => answer,
            Heard::Flush => {
                self.pipe.flush().await?;
                return Ok(None);
            }
            Heard::Nothing => return Ok(None),
        };
        self.pipe.say(&answer).await?;
        Ok(None)
    }
}

/// The next note for the publisher, or its timeout; waits forever if the client is no publisher.
async fn noted(slot: &mut Option<PublisherSlot>) -> Tick {
    let Some(slot) = slot else {
        return std::future::pending().await;
    };
    match slot.until() {
        None => slot.notes.recv().await.map_or(Tick::Late, Tick::Note),
        Some(until) => match timeout_at(until, slot.notes.recv()).await {
            Ok(note) => note.map_or(Tick::Late, Tick::Note),
            Err(_) => Tick::Late,
        },
    }
}
