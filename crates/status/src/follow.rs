mod asked;
mod silence;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    ErrorCode,
    status::{Command, ServerMessage, Status},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant as Moment, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Error;
use tokio_util::sync::CancellationToken;

use self::{
    asked::{ASKING, Asked},
    silence::{Check, Silence},
};
use crate::{
    HubAddress, Places,
    dial::{CONNECT, PortUsers, connect},
};

/// Timeout of a command; an older hub never answers one.
const ANSWER: Duration = Duration::from_secs(6);
/// Minimum lifetime of a connection that resets the reconnect backoff.
const PROVEN: Duration = Duration::from_secs(1);
/// Silence after which a foreign assistant is pinged.
const QUIET: Duration = Duration::from_secs(30);
/// Time without an answer to the ping after which its status is stale.
const UNANSWERED: Duration = Duration::from_secs(15);
/// Upper bounds of the reconnect delay: the first, and the largest.
const DELAY_FIRST: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);

/// The state of the connection to the agent, with its latest status.
#[derive(Debug, Clone)]
pub enum Link {
    /// Connected; the latest status.
    Live(Arc<Status>),
    /// Connected, but the other side does not answer a ping; the status may be outdated.
    Stale {
        /// Time of the last message.
        since: Instant,
        /// The last status.
        last: Arc<Status>,
    },
    /// Not connected.
    Lost {
        /// Since when.
        since: Instant,
        /// The last status, if any; it may be outdated.
        last: Option<Arc<Status>>,
    },
}

/// The reason why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The hub refused it.
    #[error("{message}")]
    Refused {
        /// The stable error code.
        code: ErrorCode,
        /// The message, for people.
        message: String,
    },
    /// There is no connection to the hub; nothing was sent.
    #[error(
        "no agent is running here, or it does not respond; start one with `hearth agent` or `hearth-desktop`"
    )]
    Offline,
    /// The connection broke or no answer came; the command may have been carried out.
    #[error(
        "the agent did not respond; check its status to see whether the command was carried out"
    )]
    Unanswered,
}

struct Ask {
    command: Command,
    answer: oneshot::Sender<Result<(), AskError>>,
}

/// Follows a hub until it is stopped. Created together with its [`SubscriberHandle`].
#[derive(Debug)]
pub struct Subscriber {
    places: Places,
    users: Option<PortUsers>,
    silence: Silence,
    link: watch::Sender<Link>,
    asks: mpsc::Receiver<Ask>,
}

/// A handle to a running [`Subscriber`]; cheap to clone.
#[derive(Debug, Clone)]
pub struct SubscriberHandle {
    link: watch::Receiver<Link>,
    asks: mpsc::Sender<Ask>,
}

impl SubscriberHandle {
    /// Receives the state of the connection; a slow reader sees only the latest.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// [`AskError`]; the command is never sent twice.
    pub async fn send(&self, command: Command) -> Result<(), AskError> {
        let (answer, receiver) = oneshot::channel();
        self.asks
            .try_send(Ask { command, answer })
            .map_err(|_| AskError::Offline)?;
        match timeout(ANSWER, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(AskError::Unanswered),
        }
    }
}

/// The events of a session.
enum Tick {
    Ask(Option<Ask>),
    Heard(Option<Result<ServerMessage, Error>>),
    /// No message for a while.
    Quiet,
    /// The user's own hub is now available.
    Published,
}

impl Subscriber {
    /// A subscriber to the hub at `places`, and its handle.
    #[must_use]
    pub fn new(places: Places) -> (Self, SubscriberHandle) {
        let (link, latest) = watch::channel(Link::Lost {
            since: Instant::now(),
            last: None,
        });
        let (sender, asks) = mpsc::channel(ASKING);
        (
            Self {
                places,
                users: None,
                silence: Silence::new(QUIET, UNANSWERED),
                link,
                asks,
            },
            SubscriberHandle {
                link: latest,
                asks: sender,
            },
        )
    }

    /// Changes two timeouts. `quiet`: silence after which a foreign assistant is pinged, and the
    /// interval at which the user's own hub is looked for instead (default 30 s). `unanswered`:
    /// time without an answer after which its status is stale (default 15 s).
    #[must_use]
    pub fn patient(self, quiet: Duration, unanswered: Duration) -> Self {
        let silence = Silence::new(quiet, unanswered);
        Self { silence, ..self }
    }

    /// Connects only to programs of this user; `user_of` returns the user of the program that
    /// listens on a port.
    #[must_use]
    pub(crate) fn of_this_user(
        self,
        user_of: impl Fn(u16) -> Option<u32> + Send + Sync + 'static,
    ) -> Self {
        let users = Some(PortUsers::new(user_of));
        Self { users, ..self }
    }

    /// Connects, follows, and reconnects, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut losses = 0;
        while !stop.is_cancelled() {
            let Some(ended) = stop.run_until_cancelled(self.session()).await else {
                break;
            };
            self.lose();
            let was_good = match ended {
                Ok(lasted) => lasted >= PROVEN,
                Err(error) => {
                    tracing::debug!(%error, "no status hub");
                    false
                }
            };
            losses = if was_good { 0 } else { losses + 1 };
            let pause = stop.run_until_cancelled(self.wait(delay(losses, rand::random())));
            pause.await;
        }
    }

    /// Runs one connection from start to end; returns for how long it had a status.
    async fn session(&mut self) -> Result<Duration, Error> {
        let missed = self.places.missed().map(Path::to_owned);
        let mut hub = connect(&self.places, self.users.as_ref()).await?;
        let mut live_since: Option<Instant> = None;
        let mut asked = Asked::default();
        let mut silence = self.silence;
        let own = published(missed, silence.quiet);
        tokio::pin!(own);
        loop {
            let until = hub.heard().map(|heard| silence.due(heard));
            let tick = tokio::select! {
                heard = hub.hear() => Tick::Heard(heard),
                () = quiet(until) => Tick::Quiet,
                ask = self.asks.recv(), if !asked.is_full() => Tick::Ask(ask),
                () = &mut own => Tick::Published,
            };
            match tick {
                // The caller gave up, so the command must not be carried out later.
                Tick::Ask(Some(ask)) if ask.answer.is_closed() => {}
                Tick::Ask(Some(ask)) => {
                    let number = asked.next();
                    let sent = timeout(CONNECT, hub.ask(ask.command, number)).await;
                    if matches!(sent, Ok(Ok(false))) {
                        let code = ErrorCode::NothingToDo;
                        let message = "this program does not accept commands over HTTP".to_owned();
                        let _ = ask.answer.send(Err(AskError::Refused { code, message }));
                        continue;
                    }
                    asked.keep(number, ask.answer);
                    if !matches!(sent, Ok(Ok(true))) {
                        break;
                    }
                }
                Tick::Heard(Some(Ok(message))) => match message {
                    ServerMessage::Status { data } => {
                        live_since.get_or_insert_with(Instant::now);
                        self.link.send_replace(Link::Live(Arc::new(data)));
                    }
                    ServerMessage::Ack { id, .. } => asked.settle(id, Ok(())),
                    ServerMessage::Error {
                        code, message, id, ..
                    } => {
                        asked.settle(id, Err(AskError::Refused { code, message }));
                    }
                    ServerMessage::Pong | ServerMessage::Unknown | _ => {}
                },
                Tick::Quiet => {
                    let now = Moment::now();
                    let heard = hub.heard().unwrap_or(now);
                    match silence.check(heard, now) {
                        Check::Early => {}
                        Check::Answered => self.revive(),
                        Check::Ping { is_stale } => {
                            if is_stale {
                                self.doubt(heard.into_std());
                            }
                            if !matches!(timeout(CONNECT, hub.ping()).await, Ok(Ok(()))) {
                                break;
                            }
                        }
                    }
                }
                Tick::Heard(Some(Err(_)) | None) | Tick::Ask(None) | Tick::Published => break,
            }
        }
        Ok(live_since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// Marks the status as stale.
    fn doubt(&self, since: Instant) {
        self.link.send_if_modified(|link| match link {
            Link::Live(last) => {
                let last = last.clone();
                *link = Link::Stale { since, last };
                true
            }
            Link::Stale { .. } | Link::Lost { .. } => false,
        });
    }

    /// Marks the last status as current again.
    fn revive(&self) {
        self.link.send_if_modified(|link| match link {
            Link::Stale { last, .. } => {
                *link = Link::Live(last.clone());
                true
            }
            Link::Live(_) | Link::Lost { .. } => false,
        });
    }

    fn lose(&self) {
        self.link.send_if_modified(|link| {
            let (since, last) = match link {
                Link::Live(last) => (Instant::now(), last.clone()),
                Link::Stale { since, last } => (*since, last.clone()),
                Link::Lost { .. } => return false,
            };
            let last = Some(last);
            *link = Link::Lost { since, last };
            true
        });
    }

    /// Waits for the backoff delay; commands fail with [`AskError::Offline`] meanwhile.
    async fn wait(&mut self, delay: Duration) {
        let refuse = async {
            while let Some(ask) = self.asks.recv().await {
                let _ = ask.answer.send(Err(AskError::Offline));
            }
            std::future::pending::<()>().await;
        };
        let _ = timeout(delay, refuse).await;
    }
}

/// Waits until the deadline of the silence; forever if the hub does not ping.
async fn quiet(until: Option<Moment>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Polls until the hub of this folder is published; waits forever if no folder is given.
async fn published(missed: Option<PathBuf>, pause: Duration) {
    match missed {
        Some(folder) => {
            while HubAddress::find(&folder).is_none() {
                sleep(pause).await;
            }
        }
        None => std::future::pending().await,
    }
}

/// Exponential backoff with full jitter. `chance` is in `0..1`.
fn delay(losses: u32, chance: f64) -> Duration {
    let bound = DELAY_FIRST
        .saturating_mul(1 << losses.min(10))
        .min(DELAY_MAX);
    bound.mul_f64(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_are_spread_below_it() {
        let most = |losses| delay(losses, 1.0);
        assert_eq!(
            [most(0), most(1), most(2)],
            [1, 2, 4].map(|n| DELAY_FIRST * n)
        );
        assert_eq!(most(60), DELAY_MAX);
        assert_eq!(delay(60, 0.0), Duration::ZERO);
        assert_eq!(delay(60, 0.5), DELAY_MAX / 2);
    }
}
