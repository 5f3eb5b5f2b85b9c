//! Passes a command from a socket to the agent, and its result back.

use std::time::Duration;

use proto::{ErrorCode, status::Command};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{Answer, Request};

/// A command that the agent has not answered yet. Until it has, no further message is read.
pub(crate) struct PendingCommand<Id> {
    answer: oneshot::Receiver<Answer>,
    until: Instant,
    command: Command,
    id: Id,
}

/// The result of a command.
pub(crate) struct Outcome<Id> {
    pub(crate) command: Command,
    pub(crate) id: Id,
    pub(crate) answer: Answer,
}

/// Passes a permitted command to the agent, or refuses it at once.
pub(crate) fn ask<Id>(
    commands: &mpsc::Sender<Request>,
    (command, id): (Command, Id),
    within: Duration,
) -> Result<PendingCommand<Id>, Outcome<Id>> {
    let refuse = |id, code, message: &str| {
        let answer = Err((code, message.to_owned()));
        Err(Outcome {
            command,
            id,
            answer,
        })
    };
    let (sender, answer) = oneshot::channel();
    let request = Request {
        command,
        answer: sender,
    };
    match commands.try_send(request) {
        Ok(()) => {
            tracing::debug!(command = command.as_str(), "command");
            let until = Instant::now() + within;
            Ok(PendingCommand {
                answer,
                until,
                command,
                id,
            })
        }
        Err(mpsc::error::TrySendError::Full(_)) => refuse(
            id,
            ErrorCode::RateLimited,
            "too many commands at once; try again",
        ),
        Err(mpsc::error::TrySendError::Closed(_)) => {
            refuse(id, ErrorCode::Draining, "the agent is stopping")
        }
    }
}

/// Waits for the agent's answer to the pending command; forever if there is none.
pub(crate) async fn answered<Id>(asked: &mut Option<PendingCommand<Id>>) -> Outcome<Id> {
    let Some(waiting) = asked else {
        return std::future::pending().await;
    };
    let answer = match timeout_at(waiting.until, &mut waiting.answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err((ErrorCode::Draining, "the agent is stopping".into())),
        Err(_) => Err((
            ErrorCode::Internal,
            "the agent did not respond in time".into(),
        )),
    };
    match asked.take() {
        Some(PendingCommand { command, id, .. }) => Outcome {
            command,
            id,
            answer,
        },
        None => std::future::pending().await,
    }
}
