//! One connection of the hub: status out, commands in.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use proto::{
    ErrorCode,
    status::{Command, ServerMessage},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    Answer, Limits, Request, Snapshot,
    bucket::Bucket,
    door::Grant,
    message::{Heard, read},
};

pub(crate) struct Socket {
    pub(crate) stream: WebSocketStream<TcpStream>,
    pub(crate) grant: Grant,
    pub(crate) status: watch::Receiver<Arc<Snapshot>>,
    pub(crate) commands: mpsc::Sender<Request>,
    pub(crate) limits: Limits,
}

/// Everything that can happen to a socket.
enum Tick {
    Changed,
    Due,
    Heard(Option<Result<Message, Error>>),
    Answered(ServerMessage),
    Stop,
}

/// A command the agent has not answered yet. While there is one, nothing more is read.
struct Asked {
    answer: oneshot::Receiver<Answer>,
    until: Instant,
    command: Command,
    id: Option<String>,
}

impl Socket {
    /// Serves the socket until it closes, stalls, or the hub stops.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> Result<(), Error> {
        let now = Instant::now();
        let mut budget = Bucket::new(self.limits.burst, self.limits.per_second, now.into_std());
        let (mut read_from, mut send_from, mut is_behind) = (now, now, true);
        let mut asked: Option<Asked> = None;
        loop {
            let tick = tokio::select! {
                biased;
                // Before the stop: whoever said `quit` shall hear that it was heard.
                answer = answered(&mut asked) => Tick::Answered(answer),
                () = stop.cancelled() => Tick::Stop,
                () = sleep_until(send_from), if is_behind => Tick::Due,
                changed = self.status.changed(), if !is_behind => match changed {
                    Ok(()) => Tick::Changed,
                    Err(_) => Tick::Stop,
                },
                heard = next(&mut self.stream, read_from), if asked.is_none() => Tick::Heard(heard),
            };
            match tick {
                Tick::Changed => is_behind = true,
                Tick::Due => {
                    let json = self.status.borrow_and_update().json();
                    self.send(Message::Text(json)).await?;
                    (is_behind, send_from) = (false, Instant::now() + self.limits.pace);
                }
                Tick::Answered(answer) => {
                    asked = None;
                    self.say(&answer).await?;
                }
                Tick::Heard(Some(Ok(message))) => {
                    let now = Instant::now();
                    budget.take();
                    read_from = now + budget.wait(now.into_std());
                    asked = self.hear(&message, now).await?;
                }
                Tick::Heard(Some(Err(error))) => return self.part(error).await,
                Tick::Heard(None) => return Ok(()),
                Tick::Stop => {
                    if is_behind || self.status.has_changed().unwrap_or(false) {
                        let json = self.status.borrow_and_update().json();
                        self.send(Message::Text(json)).await?;
                    }
                    return self.close(CloseCode::Away, "Hearth is stopping").await;
                }
            }
        }
    }

    async fn hear(&mut self, message: &Message, now: Instant) -> Result<Option<Asked>, Error> {
        match message {
            Message::Text(text) => match read(text) {
                Heard::Answer(answer) => self.say(&answer).await?,
                Heard::Command { command, id } => match self.ask(command, now) {
                    Ok(answer) => {
                        let until = now + self.limits.answer;
                        return Ok(Some(Asked {
                            answer,
                            until,
                            command,
                            id,
                        }));
                    }
                    Err(refused) => self.say(&reply(command, id, Err(refused))).await?,
                },
            },
            Message::Binary(_) => {
                let message = "messages are text, not binary".to_owned();
                let code = ErrorCode::BadRequest;
                self.say(&ServerMessage::Error {
                    code,
                    message,
                    command: None,
                    id: None,
                })
                .await?;
            }
            // The library has its own answer to these ready; it only has to be sent.
            Message::Ping(_) | Message::Close(_) => self.flush().await?,
            Message::Pong(_) | Message::Frame(_) => {}
        }
        Ok(None)
    }

    /// Hands a command on to the agent.
    fn ask(
        &self,
        command: Command,
        now: Instant,
    ) -> Result<oneshot::Receiver<Answer>, (ErrorCode, String)> {
        if self.grant == Grant::Read {
            return Err((
                ErrorCode::Unauthorized,
                "commands need the local token: send `Authorization: Bearer …` with the upgrade"
                    .into(),
            ));
        }
        let (answer, receiver) = oneshot::channel();
        self.commands
            .try_send(Request { command, answer })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => (
                    ErrorCode::RateLimited,
                    "too many commands at once; try again".into(),
                ),
                mpsc::error::TrySendError::Closed(_) => {
                    (ErrorCode::Draining, "the agent is stopping".into())
                }
            })?;
        tracing::debug!(command = command.as_str(), ?now, "command");
        Ok(receiver)
    }

    async fn say(&mut self, message: &ServerMessage) -> Result<(), Error> {
        let text = serde_json::to_string(message).unwrap_or_default();
        self.send(Message::text(text)).await
    }

    /// Sends, or gives the socket up if its reader takes nothing for too long.
    async fn send(&mut self, message: Message) -> Result<(), Error> {
        match timeout(self.limits.stall, self.stream.send(message)).await {
            Ok(sent) => sent,
            Err(_) => Err(stalled()),
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        match timeout(self.limits.stall, self.stream.flush()).await {
            Ok(Err(Error::ConnectionClosed)) => Ok(()),
            Ok(flushed) => flushed,
            Err(_) => Err(stalled()),
        }
    }

    /// Says which rule of the protocol itself was broken, where that is still possible.
    async fn part(self, error: Error) -> Result<(), Error> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "only these two are worth a word"
        )]
        match &error {
            Error::Capacity(_) => {
                self.close(CloseCode::Size, "the message is too large")
                    .await
            }
            Error::Utf8(_) => self.close(CloseCode::Invalid, "text must be UTF-8").await,
            _ => Err(error),
        }
    }

    async fn close(mut self, code: CloseCode, reason: &'static str) -> Result<(), Error> {
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        match timeout(self.limits.stall, self.stream.close(Some(frame))).await {
            Ok(closed) => closed,
            Err(_) => Err(stalled()),
        }
    }
}

/// Waits for the agent's answer to the command in hand; for ever if there is none.
async fn answered(asked: &mut Option<Asked>) -> ServerMessage {
    let Some(Asked {
        answer,
        until,
        command,
        id,
    }) = asked
    else {
        return std::future::pending().await;
    };
    let outcome = match timeout_at(*until, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err((ErrorCode::Draining, "the agent is stopping".into())),
        Err(_) => Err((
            ErrorCode::Internal,
            "the agent gave no answer in time".into(),
        )),
    };
    reply(*command, id.take(), outcome)
}

fn reply(command: Command, id: Option<String>, answer: Answer) -> ServerMessage {
    let word = command.as_str().to_owned();
    match answer {
        Ok(()) => ServerMessage::Ack { command: word, id },
        Err((code, message)) => ServerMessage::Error {
            code,
            message,
            command: Some(word),
            id,
        },
    }
}

/// The next message, not before `from`: who talks too fast is read more slowly.
async fn next(
    stream: &mut WebSocketStream<TcpStream>,
    from: Instant,
) -> Option<Result<Message, Error>> {
    if from > Instant::now() {
        sleep_until(from).await;
    }
    stream.next().await
}

fn stalled() -> Error {
    Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the reader takes nothing",
    ))
}
