//! Merges the status of the assistant on the hub's default port into the hub, under its own name.

use std::{pin::Pin, time::Duration};

use proto::{
    ErrorCode,
    status::{Command, Status, v1::Published},
};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Answer, AskError, Link, Places, Ports, StatusHub, Subscriber, SubscriberHandle,
    publishers::{Note, PUBLISHER_COMMANDS_MAX, PublisherCommand, PublisherSlot},
    strip_control_chars,
};

/// Publishers that connect themselves are numbered from 0.
const SEAT: u64 = u64::MAX;
/// Timeout of `stop_tts`. Most assistants of the original protocol do not acknowledge commands; a
/// status that stops speaking counts as the acknowledgement.
const ANSWER: Duration = Duration::from_millis(2_500);
/// Maximum length of a text that is taken over, in characters.
const TEXT_MAX: usize = 256;

/// Follows the status of the assistant at these ports and shows it in `hub` until `stop`: its voice
/// and text, never relay or engine. `stop_tts` is sent to it. Its fields disappear when it
/// disconnects. `user_of` returns the user of the program that listens on a port; it is
/// asked at each connection, because another user's program may have taken the port meanwhile.
pub async fn follow_neighbour(
    hub: StatusHub,
    ports: Ports,
    name: String,
    user_of: impl Fn(u16) -> Option<u32> + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let origin = ports.sockets.iter().chain(&ports.http).next();
    let origin = origin.map_or_else(String::new, ToString::to_string);
    let (subscriber, handle) = Subscriber::new(Places::Ports(ports));
    let subscriber = subscriber.of_this_user(user_of);
    let slot = PublisherSlot::new(hub, SEAT, name).read_from(origin);
    tokio::join!(subscriber.run(stop.clone()), async {
        let _ = stop.run_until_cancelled(merge(slot, &handle)).await;
    });
}

/// The one pending request to stop speaking, shared by all callers.
struct Stopping<'a> {
    asking: Pin<Box<dyn Future<Output = Answer> + Send + 'a>>,
    answers: Vec<oneshot::Sender<Answer>>,
}

async fn merge(mut slot: PublisherSlot, handle: &SubscriberHandle) {
    let (mut link, mut shown) = (handle.link(), slot.shown());
    let mut stopping = None;
    loop {
        shown.mark_unchanged();
        let latest = link.borrow_and_update().clone();
        match &latest {
            Link::Live(status) => {
                publish(&slot, &fields(status));
                slot.set_stale(false);
            }
            Link::Stale { .. } => slot.set_stale(true),
            Link::Lost { .. } => publish(&slot, &nothing()),
        }
        tokio::select! {
            changed = link.changed() => if changed.is_err() { return },
            // A publisher with precedence may have left, so the assistant's fields apply again.
            changed = shown.changed() => if changed.is_err() { return },
            note = slot.notes.recv() => match note {
                Some(Note::Do(request)) => pass_on(request, handle, &mut stopping),
                // A publisher took these fields over, and has announced that.
                Some(Note::Taken { .. }) => {}
                None => return,
            },
            // The status is read on meanwhile.
            answer = stopped(&mut stopping) => {
                for waiting in stopping.take().map(|stopping| stopping.answers).into_iter().flatten() {
                    let _ = waiting.send(answer.clone());
                }
            }
        }
    }
}

/// The result of the pending request; waits forever if there is none.
async fn stopped(stopping: &mut Option<Stopping<'_>>) -> Answer {
    match stopping {
        Some(stopping) => stopping.asking.as_mut().await,
        None => std::future::pending().await,
    }
}

fn fields(status: &Status) -> Published {
    let is_active = status.is_listening || status.is_speaking || status.wake_word_detected;
    let text: String = strip_control_chars(&status.text)
        .chars()
        .take(TEXT_MAX)
        .collect();
    Published {
        is_listening: Some(Some(status.is_listening)),
        is_speaking: Some(Some(status.is_speaking)),
        wake_word_detected: Some(Some(status.wake_word_detected)),
        // At rest the hub's own text is better: it names the state of relay and engine.
        text: Some(Some(text).filter(|text| is_active && !text.is_empty())),
    }
}

const fn nothing() -> Published {
    Published {
        is_listening: Some(None),
        is_speaking: Some(None),
        wake_word_detected: Some(None),
        text: Some(None),
    }
}

/// Publishes the assistant's fields, without those that a connected publisher holds.
fn publish(slot: &PublisherSlot, fields: &Published) {
    if let Err((code, _)) = slot.publish(fields, false) {
        tracing::debug!(%code, "another program publishes what the neighbour does");
    }
}

fn pass_on<'a>(
    PublisherCommand { command, answer }: PublisherCommand,
    handle: &'a SubscriberHandle,
    stopping: &mut Option<Stopping<'a>>,
) {
    let refused = if command != Command::StopTts {
        let message = "the speaking assistant does not support this command";
        (ErrorCode::NothingToDo, message)
    } else {
        let stopping = stopping.get_or_insert_with(|| Stopping {
            asking: Box::pin(stop(handle)),
            answers: Vec::new(),
        });
        if stopping.answers.len() < PUBLISHER_COMMANDS_MAX {
            stopping.answers.push(answer);
            return;
        }
        let message = "a request to stop the assistant is already pending";
        (ErrorCode::RateLimited, message)
    };
    let _ = answer.send(Err((refused.0, refused.1.to_owned())));
}

async fn stop(handle: &SubscriberHandle) -> Answer {
    let mut link = handle.link();
    match timeout(ANSWER, is_silent(handle, &mut link)).await {
        Ok(answer) => answer,
        Err(_) => {
            let message = "the assistant was asked to stop, but is still speaking";
            Err((ErrorCode::DeadlineExceeded, message.to_owned()))
        }
    }
}

/// Completes when the assistant acknowledges `stop_tts` or its status stops speaking.
async fn is_silent(handle: &SubscriberHandle, link: &mut watch::Receiver<Link>) -> Answer {
    let silent = link.wait_for(|link| matches!(link, Link::Live(status) if !status.is_speaking));
    let asked = async {
        match handle.send(Command::StopTts).await {
            Ok(()) => Ok(()),
            Err(AskError::Refused { code, message }) => Err((code, message)),
            Err(AskError::Offline | AskError::Unanswered) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        answer = asked => answer,
        _ = silent => Ok(()),
    }
}
