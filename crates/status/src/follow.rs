use std::{
    collections::HashMap,
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

use crate::{
    Holder, HubAddress, Places,
    dial::{CONNECT, Holders, connect},
};

/// An older hub never answers a command.
const ANSWER: Duration = Duration::from_secs(6);
/// A link that held this long was good: the next loss begins the delays anew.
const PROVEN: Duration = Duration::from_secs(1);
/// A foreign assistant that said nothing for so long is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(30);
/// Without one for so long its status is stale.
const UNANSWERED: Duration = Duration::from_secs(15);
/// Longest delay before the first new try, and before any.
const DELAY_FIRST: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);
/// Commands on their way at once.
const ASKING: usize = 32;

/// What is known of the agent: its status, or since when nothing is.
#[derive(Debug, Clone)]
pub enum Link {
    /// Connected; this is the latest status.
    Live(Arc<Status>),
    /// Connected, but whoever is there has not even answered a ping: this may be long wrong.
    Stale {
        /// Since when nothing came.
        since: Instant,
        /// The last status there was.
        last: Arc<Status>,
    },
    /// Not connected.
    Lost {
        /// Since when.
        since: Instant,
        /// The last status there was; it may be long wrong.
        last: Option<Arc<Status>>,
    },
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The hub refused it.
    #[error("{message}")]
    Refused {
        /// Stable code.
        code: ErrorCode,
        /// For a person.
        message: String,
    },
    /// There is no connection to the hub; nothing was sent.
    #[error("the agent is not running or cannot be reached; start it with `hearth agent`")]
    Offline,
    /// The connection broke, or no answer came; the command may have been carried out.
    #[error(
        "the agent did not respond; check its status to see whether the command was carried out"
    )]
    Unanswered,
}

struct Ask {
    command: Command,
    answer: oneshot::Sender<Result<(), AskError>>,
}

/// Follows a hub for ever. Made with its [`SubscriberHandle`]; runs until it is stopped.
#[derive(Debug)]
pub struct Subscriber {
    places: Places,
    holders: Option<Holders>,
    patience: [Duration; 2],
    link: watch::Sender<Link>,
    asks: mpsc::Receiver<Ask>,
}

/// The way to a running [`Subscriber`]; cheap to clone.
#[derive(Debug, Clone)]
pub struct SubscriberHandle {
    link: watch::Receiver<Link>,
    asks: mpsc::Sender<Ask>,
}

impl SubscriberHandle {
    /// Follows the link; a slow reader sees only the latest.
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

/// Everything that can happen during a session.
enum Tick {
    Ask(Option<Ask>),
    Heard(Option<Result<ServerMessage, Error>>),
    /// Nothing came for a while.
    Quiet,
    /// The hub that was looked for is there now.
    Published,
}

impl Subscriber {
    /// A follower of the hub at `places`, and the handle to it.
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
                holders: None,
                patience: [QUIET, UNANSWERED],
                link,
                asks,
            },
            SubscriberHandle {
                link: latest,
                asks: sender,
            },
        )
    }

    /// Asks for a sign of life after so long a silence of a foreign assistant, and looks as often
    /// whether the own hub is there instead (30 s); calls its status stale after so long without a
    /// sign (15 s).
    #[must_use]
    pub fn patient(self, quiet: Duration, unanswered: Duration) -> Self {
        let patience = [quiet, unanswered];
        Self { patience, ..self }
    }

    /// Believes programs of this user alone; `holder` tells whose program listens on a port.
    #[must_use]
    pub(crate) fn of_this_user(
        self,
        holder: impl Fn(u16) -> Option<Holder> + Send + Sync + 'static,
    ) -> Self {
        let holders = Some(Holders::new(holder));
        Self { holders, ..self }
    }

    /// Connects, follows, and connects again, until `stop`.
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

    /// One connection, from its first byte to its last; how long it showed a status.
    async fn session(&mut self) -> Result<Duration, Error> {
        let missed = self.places.missed().map(Path::to_owned);
        let mut hub = connect(&self.places, self.holders.as_ref()).await?;
        let mut live_since: Option<Instant> = None;
        let mut asked: HashMap<String, oneshot::Sender<Result<(), AskError>>> = HashMap::new();
        let mut count = 0_u64;
        let [most, unanswered] = self.patience;
        let mut pinged: Option<Moment> = None;
        let own = published(missed, most);
        tokio::pin!(own);
        loop {
            let from = |heard| pinged.map_or(heard + most, |at| at + unanswered);
            let until = hub.heard().map(from);
            let tick = tokio::select! {
                heard = hub.hear() => Tick::Heard(heard),
                () = quiet(until) => Tick::Quiet,
                ask = self.asks.recv(), if asked.len() < ASKING => Tick::Ask(ask),
                () = &mut own => Tick::Published,
            };
            match tick {
                // Whoever asked has given up: it must not happen behind his back.
                Tick::Ask(Some(ask)) if ask.answer.is_closed() => {}
                Tick::Ask(Some(ask)) => {
                    asked.retain(|_, answer| !answer.is_closed());
                    count += 1;
                    let sent = timeout(CONNECT, hub.ask(ask.command, count)).await;
                    if matches!(sent, Ok(Ok(false))) {
                        let code = ErrorCode::NothingToDo;
                        let message = "this program takes no commands over HTTP".to_owned();
                        let _ = ask.answer.send(Err(AskError::Refused { code, message }));
                        continue;
                    }
                    asked.insert(count.to_string(), ask.answer);
                    if !matches!(sent, Ok(Ok(true))) {
                        break;
                    }
                }
                Tick::Heard(Some(Ok(message))) => match message {
                    ServerMessage::Status { data } => {
                        live_since.get_or_insert_with(Instant::now);
                        self.link.send_replace(Link::Live(Arc::new(data)));
                    }
                    ServerMessage::Ack { id, .. } => settle(&mut asked, id, Ok(())),
                    ServerMessage::Error {
                        code, message, id, ..
                    } => {
                        settle(&mut asked, id, Err(AskError::Refused { code, message }));
                    }
                    ServerMessage::Pong | ServerMessage::Unknown | _ => {}
                },
                Tick::Quiet => {
                    let now = Moment::now();
                    let heard = hub.heard().unwrap_or(now);
                    match pinged {
                        Some(at) if heard >= at => {
                            pinged = None;
                            self.revive();
                        }
                        None if heard + most > now => {}
                        waited => {
                            if waited.is_some() {
                                self.doubt(heard.into_std());
                            }
                            pinged = Some(now);
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

    /// The last status may be long wrong.
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

    /// There was a sign of life: what it said last holds.
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
        self.link.send_if_modified(|link| match link {
            Link::Live(last) => {
                *link = Link::Lost {
                    since: Instant::now(),
                    last: Some(last.clone()),
                };
                true
            }
            Link::Stale { since, last } => {
                *link = Link::Lost {
                    since: *since,
                    last: Some(last.clone()),
                };
                true
            }
            Link::Lost { .. } => false,
        });
    }

    /// Waits out a delay; commands meanwhile are told that nobody is there.
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

/// Waits until the silence has lasted; for ever where silence means nothing.
async fn quiet(until: Option<Moment>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Looks now and then whether the hub is there that was missed in this folder; for ever if none was.
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

fn settle(
    asked: &mut HashMap<String, oneshot::Sender<Result<(), AskError>>>,
    id: Option<String>,
    answer: Result<(), AskError>,
) {
    if let Some(sender) = id.and_then(|id| asked.remove(&id)) {
        let _ = sender.send(answer);
    }
}

/// Full jitter: anything up to a bound that doubles with each loss. `chance` is in `0..1`.
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
