//! The assistant that holds the hub's usual port: its status is merged into the hub's, as its own.

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
    Answer, AskError, Holder, Link, Places, Ports, StatusHub, Subscriber, SubscriberHandle, plain,
    publishers::{ERRANDS, Errand, Note, Seat},
};

/// Those who came to the hub themselves are numbered from 0.
const SEAT: u64 = u64::MAX;
/// Most founding assistants answer no command; that one falls silent is the answer.
const ANSWER: Duration = Duration::from_millis(2_500);
/// Longest text that is taken over, in characters.
const TEXT_MAX: usize = 256;

/// Reads the status of the assistant at these ports and shows it in `hub` until `stop`: what it
/// hears and says, never relay or engine. It is sent `stop_tts`. Its fields go when it goes.
/// `holder` tells whose program listens on a port; it is asked at each connection, as another
/// user's may come after the one that was there.
pub async fn follow_neighbour(
    hub: StatusHub,
    ports: Ports,
    name: String,
    holder: impl Fn(u16) -> Option<Holder> + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let origin = ports.sockets.iter().chain(&ports.http).next();
    let origin = origin.map_or_else(String::new, ToString::to_string);
    let (subscriber, handle) = Subscriber::new(Places::Ports(ports));
    let subscriber = subscriber.of_this_user(holder);
    let seat = Seat::new(hub, SEAT, name).read_from(origin);
    tokio::join!(subscriber.run(stop.clone()), async {
        let _ = stop.run_until_cancelled(merge(seat, &handle)).await;
    });
}

/// The neighbour is being asked to stop, once, for everybody who wants that.
struct Stopping<'a> {
    asking: Pin<Box<dyn Future<Output = Answer> + Send + 'a>>,
    answers: Vec<oneshot::Sender<Answer>>,
}

async fn merge(mut seat: Seat, handle: &SubscriberHandle) {
    let (mut link, mut shown) = (handle.link(), seat.shown());
    let mut stopping = None;
    loop {
        shown.mark_unchanged();
        let latest = link.borrow_and_update().clone();
        match &latest {
            Link::Live(status) => {
                publish(&seat, &fields(status));
                seat.doubt(false);
            }
            Link::Stale { .. } => seat.doubt(true),
            Link::Lost { .. } => publish(&seat, &nothing()),
        }
        tokio::select! {
            changed = link.changed() => if changed.is_err() { return },
            // Another program may have left, and with it what was said instead of the neighbour.
            changed = shown.changed() => if changed.is_err() { return },
            note = seat.notes.recv() => match note {
                Some(Note::Do(errand)) => pass_on(errand, handle, &mut stopping),
                // Another program publishes these now, and said so.
                Some(Note::Taken { .. }) => {}
                None => return,
            },
            // Meanwhile it is read on.
            answer = stopped(&mut stopping) => {
                for waiting in stopping.take().map(|stopping| stopping.answers).into_iter().flatten() {
                    let _ = waiting.send(answer.clone());
                }
            }
        }
    }
}

/// How it ended; for ever if nothing was asked.
async fn stopped(stopping: &mut Option<Stopping<'_>>) -> Answer {
    match stopping {
        Some(stopping) => stopping.asking.as_mut().await,
        None => std::future::pending().await,
    }
}

fn fields(status: &Status) -> Published {
    let is_active = status.is_listening || status.is_speaking || status.wake_word_detected;
    let text: String = plain(&status.text).chars().take(TEXT_MAX).collect();
    Published {
        is_listening: Some(Some(status.is_listening)),
        is_speaking: Some(Some(status.is_speaking)),
        wake_word_detected: Some(Some(status.wake_word_detected)),
        // At rest the text is Hearth's own: it says whether relay and engine are there.
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

/// Whoever came to the hub himself goes before what is merely read: his fields are left out.
fn publish(seat: &Seat, fields: &Published) {
    if let Err((code, _)) = seat.publish(fields, false) {
        tracing::debug!(%code, "another program publishes what the neighbour does");
    }
}

fn pass_on<'a>(
    Errand { command, answer }: Errand,
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
        if stopping.answers.len() < ERRANDS {
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

/// Once it says that it did it, or that it does not speak any more.
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
