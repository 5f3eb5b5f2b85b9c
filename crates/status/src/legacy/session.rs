//! A connection in the legacy mode: status out, commands in.

use proto::{
    ErrorCode,
    status::{Command, ServerMessage, v1::Cause},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::message::{Heard, read};
use crate::{
    Limits, Request, StatusHub, World,
    approvals::Verdict,
    asking::{Outcome, answered, ask},
    caller::{ApprovalResult, Caller, HeldCommand, decided, denied},
    frames::{Shape, View},
    pipe::{Pipe, ReadingPace},
    token_check::Grant,
};

pub(crate) struct Session<'a> {
    pub(crate) pipe: Pipe,
    pub(crate) grant: Grant,
    pub(crate) caller: Caller,
    /// The command that waits for the owner's approval.
    pub(crate) held: Option<HeldCommand<Option<String>>>,
    pub(crate) hub: StatusHub,
    pub(crate) commands: mpsc::Sender<Request>,
    pub(crate) limits: Limits,
    pub(crate) world: &'a World,
}

/// A command that the agent has not answered yet, with the client's id.
type PendingCommand = crate::asking::PendingCommand<Option<String>>;

/// The events of a session.
enum Tick {
    Heard(Option<Result<Message, Error>>),
    Answered(Outcome<Option<String>>),
    ApprovalResult(ApprovalResult<Option<String>>),
    /// A status could not be written at once.
    Called,
    Stop,
}

impl Session<'_> {
    /// Serves the socket until it closes, stalls, or the hub stops.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> Result<(), Error> {
        let ended = self.serve(stop).await;
        self.caller.leaves(self.held.take()).await;
        ended
    }

    async fn serve(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let limits = &self.limits;
        let mut pace = ReadingPace::new(limits.burst, limits.per_second, Instant::now());
        let connection = self.pipe.connection.clone();
        let mut asked: Option<PendingCommand> = None;
        let view = View::new(Shape::Legacy, Cause::First);
        self.pipe.follow(Some(view), &self.hub);
        loop {
            let tick = tokio::select! {
                biased;
                // Before the stop, so that the answer to `quit` is sent.
                answer = answered(&mut asked) => Tick::Answered(answer),
                decision = decided(&mut self.held), if asked.is_none() => Tick::ApprovalResult(decision),
                () = stop.cancelled() => Tick::Stop,
                () = connection.called() => Tick::Called,
                heard = self.pipe.next(pace.from()), if asked.is_none() => Tick::Heard(heard),
            };
            match tick {
                Tick::Answered(outcome) => self.pipe.say(&reply(outcome)).await?,
                Tick::ApprovalResult(decision) => asked = self.settle(decision).await?,
                Tick::Heard(Some(Ok(message))) => {
                    pace.count(Instant::now());
                    asked = self.hear(&message).await?;
                }
                Tick::Heard(Some(Err(error))) => return self.pipe.part(error).await,
                Tick::Heard(None) => return Ok(()),
                Tick::Called => self.pipe.catch_up(&self.hub).await?,
                Tick::Stop => return self.pipe.leave(&self.hub).await,
            }
        }
    }

    async fn hand_on(
        &mut self,
        command: Command,
        id: Option<String>,
    ) -> Result<Option<PendingCommand>, Error> {
        match ask(&self.commands, (command, id), self.limits.answer) {
            Ok(asked) => Ok(Some(asked)),
            Err(refused) => {
                self.pipe.say(&reply(refused)).await?;
                Ok(None)
            }
        }
    }

    /// Handles the owner's decision on the pending command.
    async fn settle(
        &mut self,
        decided: ApprovalResult<Option<String>>,
    ) -> Result<Option<PendingCommand>, Error> {
        let (approval, command, id) = (decided.approval, decided.command, decided.id);
        match decided.verdict {
            Some(Verdict::Once) => {}
            Some(Verdict::Always(grant, token)) => {
                self.grant = Grant::Guest(grant);
                let granted = ServerMessage::Granted { approval, token };
                if let Err(error) = self.pipe.say(&granted).await {
                    self.caller.take_back(grant).await;
                    return Err(error);
                }
            }
            verdict @ (Some(Verdict::No) | None) => {
                let (code, message) = denied(verdict.as_ref());
                let command = Some(command.as_str().to_owned());
                let refused = ServerMessage::Error {
                    code,
                    message,
                    command,
                    id,
                    approval: Some(approval),
                };
                self.pipe.say(&refused).await?;
                return Ok(None);
            }
        }
        self.hand_on(command, id).await
    }

    async fn hear(&mut self, message: &Message) -> Result<Option<PendingCommand>, Error> {
        match message {
            Message::Text(text) => match read(text) {
                Heard::Answer(answer) => self.pipe.say(&answer).await?,
                Heard::Ping { id } => {
                    let result = Some(self.world.pong(self.hub.latest().status()));
                    let command = "ping".to_owned();
                    let ack = ServerMessage::Ack {
                        command,
                        id,
                        result,
                    };
                    self.pipe.say(&ack).await?;
                }
                Heard::Command { command, id, name } if !self.caller.may_command(self.grant) => {
                    let asks = (command, id.clone());
                    let (code, message, approval) =
                        self.caller.raise(&mut self.held, &name, asks).await;
                    self.pipe
                        .say(&ServerMessage::Error {
                            code,
                            message,
                            command: Some(command.as_str().to_owned()),
                            id,
                            approval,
                        })
                        .await?;
                }
                Heard::Command { command, id, .. } => return self.hand_on(command, id).await,
            },
            Message::Binary(_) => {
                let message = "messages must be text, not binary".to_owned();
                let code = ErrorCode::BadRequest;
                let refused = ServerMessage::Error {
                    code,
                    message,
                    command: None,
                    id: None,
                    approval: None,
                };
                self.pipe.say(&refused).await?;
            }
            // The library has queued its own answer; it only has to be flushed.
            Message::Ping(_) | Message::Close(_) => self.pipe.flush().await?,
            Message::Pong(_) | Message::Frame(_) => {}
        }
        Ok(None)
    }
}

fn reply(outcome: Outcome<Option<String>>) -> ServerMessage {
    let Outcome {
        command,
        id,
        answer,
    } = outcome;
    let word = command.as_str().to_owned();
    match answer {
        Ok(()) => ServerMessage::Ack {
            command: word,
            id,
            result: None,
        },
        Err((code, message)) => ServerMessage::Error {
            code,
            message,
            command: Some(word),
            id,
            approval: None,
        },
    }
}
