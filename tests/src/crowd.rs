//! Many concurrent requesters, each with its own log. They use several APIs, retry while the relay
//! is down, and record only what they see.

mod door;
pub(crate) mod reader;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

pub use door::Door;

use crate::{
    auditor::{Note, Seen},
    tagged_engine::{EngineBehavior, Question},
};

/// The questions to ask.
#[derive(Debug, Clone)]
pub struct Load {
    /// Prefix of every question's name; occurs only in prompts and answers.
    pub canary: String,
    /// Maximum number of questions in flight.
    pub at_once: usize,
    /// Number of words of an answer.
    pub words: u64,
    /// Pause between words.
    pub pause: Duration,
    /// Every how many questions one fails at its engine; 0 for never.
    pub faulty_every: u64,
}

impl Load {
    fn question(&self, n: u64) -> Question {
        let behavior = match n.checked_div(self.faulty_every) {
            Some(nth) if n.is_multiple_of(self.faulty_every) => {
                const WRONG: [EngineBehavior; 4] = [
                    EngineBehavior::DeadOnce,
                    EngineBehavior::Refuse,
                    EngineBehavior::HalfJson,
                    EngineBehavior::Cut,
                ];
                WRONG[(nth % 4) as usize]
            }
            _ => EngineBehavior::Well,
        };
        Question {
            name: format!("{}-{n}", self.canary),
            words: self.words,
            pause: self.pause,
            behavior,
            only: None,
        }
    }
}

/// The requesters. They stop when dropped.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    load: Load,
    next: u64,
    room: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

/// State shared by all requesters.
#[derive(Debug)]
pub(crate) struct Shared {
    address: SocketAddr,
    keys: Vec<String>,
    http: reqwest::Client,
    notes: Mutex<Vec<Note>>,
    /// Bodies of refusals, which must not contain secrets.
    refusals: Mutex<Vec<String>>,
    answered: watch::Sender<usize>,
    noted: watch::Sender<()>,
    patience: Duration,
}

/// Maximum number of refusals kept.
const REFUSALS_KEPT: usize = 10_000;

impl Shared {
    fn note(&self, question: &str, seen: Seen) {
        let is_end = matches!(seen, Seen::Ended(..));
        let question = question.to_owned();
        self.notes.lock().push(Note { question, seen });
        self.noted.send_replace(());
        if is_end {
            self.answered.send_modify(|count| *count += 1);
        }
    }

    fn refused(&self, body: String) {
        let mut refusals = self.refusals.lock();
        if refusals.len() < REFUSALS_KEPT {
            refusals.push(body);
        }
    }
}

impl Crowd {
    /// Requesters that use these keys in turn; none asks yet. `patience` is the timeout for an
    /// acknowledged question.
    #[must_use]
    pub fn new(address: SocketAddr, keys: Vec<String>, load: Load, patience: Duration) -> Self {
        let shared = Shared {
            address,
            keys,
            http: crate::test_bed::client(),
            notes: Mutex::default(),
            refusals: Mutex::default(),
            answered: watch::Sender::new(0),
            noted: watch::Sender::new(()),
            patience,
        };
        Self {
            shared: Arc::new(shared),
            room: Arc::new(Semaphore::new(load.at_once)),
            load,
            next: 0,
            tasks: JoinSet::new(),
        }
    }

    /// Asks this many questions as fast as the limit allows; returns when the last has started.
    pub async fn ask(&mut self, count: u64) {
        for _ in 0..count {
            let question = self.load.question(self.next);
            self.spawn(question).await;
        }
    }

    /// Asks one question as a native job.
    pub async fn ask_this(&mut self, question: Question) {
        self.next = self.next.next_multiple_of(door::TURNS);
        self.spawn(question).await;
    }

    async fn spawn(&mut self, question: Question) {
        while self.tasks.try_join_next().is_some() {}
        // The semaphore is never closed.
        let room = Arc::clone(&self.room).acquire_owned().await;
        let (shared, n) = (Arc::clone(&self.shared), self.next);
        self.next += 1;
        self.tasks.spawn(async move {
            door::ask(&shared, n, &question).await;
            drop(room);
        });
    }

    /// Receives the number of ended answers.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<usize> {
        self.shared.answered.subscribe()
    }

    /// Waits until the logs contain what `is_noted` looks for.
    pub async fn until(&self, mut is_noted: impl FnMut(&[Note]) -> bool) {
        let mut noted = self.shared.noted.subscribe();
        // `self` holds the sender.
        drop(
            noted
                .wait_for(|()| is_noted(&self.shared.notes.lock()))
                .await,
        );
    }

    /// The number of ended answers.
    #[must_use]
    pub fn answered(&self) -> usize {
        *self.shared.answered.borrow()
    }

    /// Waits until every requester has its answer or has given up.
    pub async fn all_ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Reads every acknowledged job once more, from the start.
    pub async fn read_again(&mut self) {
        let named: Vec<(String, String)> = self
            .shared
            .notes
            .lock()
            .iter()
            .filter_map(|note| {
                let Seen::Acknowledged(id) = &note.seen else {
                    return None;
                };
                Some((note.question.clone(), id.clone()))
            })
            .collect();
        for (n, (question, id)) in (0..).zip(named) {
            while self.tasks.try_join_next().is_some() {}
            let room = Arc::clone(&self.room).acquire_owned().await;
            let shared = Arc::clone(&self.shared);
            self.tasks.spawn(async move {
                reader::follow(&shared, n, &question, &id, 1).await;
                drop(room);
            });
        }
        self.all_ended().await;
    }

    /// The logs of the requesters.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        self.shared.notes.lock().clone()
    }

    /// The bodies of refusals.
    #[must_use]
    pub fn refusals(&self) -> Vec<String> {
        self.shared.refusals.lock().clone()
    }
}
