//! Many requesters at once, each with its own log: they ask in several dialects, come back when
//! the relay was away, and write down what they see and nothing else.

mod door;
pub(crate) mod reader;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

pub use door::Door;

use crate::{
    auditor::{Note, Seen},
    marked::{Manner, Question},
};

/// What the requesters ask.
#[derive(Debug, Clone)]
pub struct Load {
    /// The beginning of every question's name, found nowhere but in prompts and answers.
    pub canary: String,
    /// How many questions are under way at most.
    pub at_once: usize,
    /// How many words an answer has.
    pub words: u64,
    /// The pause between them.
    pub pause: Duration,
    /// Every so many questions one goes wrong at its engine; never if 0.
    pub faulty_every: u64,
}

impl Load {
    fn question(&self, n: u64) -> Question {
        let manner = match n.checked_div(self.faulty_every) {
            Some(nth) if n.is_multiple_of(self.faulty_every) => {
                const WRONG: [Manner; 4] = [
                    Manner::DeadOnce,
                    Manner::Refuse,
                    Manner::HalfJson,
                    Manner::Cut,
                ];
                WRONG[(nth % 4) as usize]
            }
            _ => Manner::Well,
        };
        Question {
            name: format!("{}-{n}", self.canary),
            words: self.words,
            pause: self.pause,
            manner,
            only: None,
        }
    }
}

/// The requesters. They end when dropped.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    load: Load,
    next: u64,
    room: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

/// What all requesters have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    address: SocketAddr,
    keys: Vec<String>,
    http: reqwest::Client,
    notes: Mutex<Vec<Note>>,
    /// Bodies of refusals: nothing secret may be in them.
    refusals: Mutex<Vec<String>>,
    answered: watch::Sender<usize>,
    noted: watch::Sender<()>,
    patience: Duration,
}

/// Refusals that are kept to be searched.
const REFUSALS_KEPT: usize = 10_000;

impl Shared {
    fn note(&self, question: &str, seen: Seen) {
        let is_end = matches!(seen, Seen::Ended(..));
        let question = question.to_owned();
        lock(&self.notes).push(Note { question, seen });
        self.noted.send_replace(());
        if is_end {
            self.answered.send_modify(|count| *count += 1);
        }
    }

    fn refused(&self, body: String) {
        let mut refusals = lock(&self.refusals);
        if refusals.len() < REFUSALS_KEPT {
            refusals.push(body);
        }
    }
}

impl Crowd {
    /// Requesters of a relay, with these keys in turn; nobody asks yet. What was acknowledged is
    /// waited for so long.
    #[must_use]
    pub fn new(address: SocketAddr, keys: Vec<String>, load: Load, patience: Duration) -> Self {
        let shared = Shared {
            address,
            keys,
            http: crate::stand::client(),
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

    /// Asks so many questions as fast as there is room, and answers when the last was begun.
    pub async fn ask(&mut self, count: u64) {
        for _ in 0..count {
            let question = self.load.question(self.next);
            self.spawn(question).await;
        }
    }

    /// Asks one question as a native job, whatever the turn.
    pub async fn ask_this(&mut self, question: Question) {
        self.next = self.next.next_multiple_of(door::TURNS);
        self.spawn(question).await;
    }

    async fn spawn(&mut self, question: Question) {
        while self.tasks.try_join_next().is_some() {}
        // It is never closed.
        let room = Arc::clone(&self.room).acquire_owned().await;
        let (shared, n) = (Arc::clone(&self.shared), self.next);
        self.next += 1;
        self.tasks.spawn(async move {
            door::ask(&shared, n, &question).await;
            drop(room);
        });
    }

    /// How many answers have ended, as it rises.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<usize> {
        self.shared.answered.subscribe()
    }

    /// Waits until the requesters have written down what is asked for.
    pub async fn until(&self, mut is_noted: impl FnMut(&[Note]) -> bool) {
        let mut noted = self.shared.noted.subscribe();
        // The sender is held by `self`.
        drop(
            noted
                .wait_for(|()| is_noted(&lock(&self.shared.notes)))
                .await,
        );
    }

    /// How many answers have ended.
    #[must_use]
    pub fn answered(&self) -> usize {
        *self.shared.answered.borrow()
    }

    /// Waits until every requester has its answer or has given up.
    pub async fn all_ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Has everything that was acknowledged read once more, from the beginning.
    pub async fn read_again(&mut self) {
        let named: Vec<(String, String)> = lock(&self.shared.notes)
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

    /// What the requesters wrote down.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        lock(&self.shared.notes).clone()
    }

    /// What refusals said.
    #[must_use]
    pub fn refusals(&self) -> Vec<String> {
        lock(&self.shared.refusals).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
