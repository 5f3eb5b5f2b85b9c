//! Asks the owner whether a program without the local token may send commands.
//!
//! The owner is shown the program's own name and what the system knows about its process. Neither
//! is used to recognize the program later: names are free, and a process can run under any file
//! name. A permanent grant is therefore a token made for that program, sent to it once, and stored
//! like the local token.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use proto::{
    ErrorCode,
    status::{
        Command,
        pair::{Allowed, Pairs, Program, Secret, Waiting},
        v1::{Proof, Side},
    },
};
use tokio::{
    sync::{oneshot, watch},
    task::spawn_blocking,
};

use self::grants::{GRANTS_MAX, Grant, load, save, set_aside};
use crate::{Answer, LocalToken, World, bucket::Bucket, peer::Identity, proof::Challenge};

mod grants;
#[cfg(test)]
mod tests;

/// Maximum number of pending approvals shown to the owner.
const WAITING_MAX: usize = 4;
/// Maximum number of approvals requested within [`WINDOW`], by all programs together.
const ASKED_MAX: usize = 8;
/// Window of [`ASKED_MAX`], and the time for which a refused program may not ask again.
const WINDOW: Duration = Duration::from_secs(600);
/// Burst of the rate limit on looking up which process is connected.
const LOOKS_BURST: u32 = 8;
const LOOKS_PER_SECOND: u32 = 1;
/// Maximum number of refusals remembered.
const REFUSED_MAX: usize = 64;

/// The pending approvals and the permanent grants. Clones share one state.
#[derive(Debug, Clone)]
pub struct Approvals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    shown: watch::Sender<Arc<Pairs>>,
    file: PathBuf,
    /// Held while the file is written.
    writing: tokio::sync::Mutex<()>,
    world: World,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    waiting: Vec<Asked>,
    grants: Vec<Grant>,
    /// Never reused: a connection may remember the number of a revoked grant.
    last_grant: u64,
    /// Rate limit of peer-process lookups.
    looks: Option<Bucket>,
    /// When the latest approvals were requested.
    put: VecDeque<Instant>,
    refused: VecDeque<(Identity, Instant)>,
    /// The file cannot be read, and still exists.
    unread: bool,
}

#[derive(Debug)]
struct Asked {
    id: u64,
    by: Identity,
    shown: Waiting,
    verdict: oneshot::Sender<Verdict>,
}

/// For how long the owner allows a program's commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consent {
    /// For this command.
    Once,
    /// For each later one, too, until it is revoked.
    Always,
}

/// The owner's decision.
#[derive(Debug)]
pub(crate) enum Verdict {
    Once,
    Always(u64, Secret),
    No,
}

/// A pending approval; withdrawn when dropped.
#[derive(Debug)]
pub(crate) struct PendingApproval {
    pub(crate) id: u64,
    pub(crate) verdict: oneshot::Receiver<Verdict>,
    approvals: Approvals,
}

impl PendingApproval {
    /// The decision so far; a later decision of the owner fails with `nothing_to_do`.
    pub(crate) fn last_word(&mut self) -> Option<Verdict> {
        self.verdict.close();
        self.verdict.try_recv().ok()
    }
}

impl Approvals {
    /// Reads the permanent grants from Hearth's data folder. A damaged file allows nothing.
    #[must_use]
    pub fn open(folder: &Path, world: World) -> Self {
        let file = folder.join("approved.json");
        let loaded = load(&file);
        if let Err(error) = &loaded {
            tracing::warn!(
                path = %file.display(), %error,
                "the list of allowed programs cannot be read, so none is allowed: repair the file \
                 and restart Hearth, or allow a program again to replace the list"
            );
        }
        let unread = loaded.is_err();
        let grants = loaded.unwrap_or_default();
        let state = State {
            last_grant: grants.iter().map(|grant| grant.id).max().unwrap_or(0),
            grants,
            unread,
            ..State::default()
        };
        let shown = watch::Sender::new(Arc::new(state.pairs()));
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            shown,
            file,
            writing: tokio::sync::Mutex::default(),
            world,
        }))
    }

    /// Receives the pending approvals and the permanent grants at each change.
    #[must_use]
    pub fn pairs(&self) -> watch::Receiver<Arc<Pairs>> {
        self.0.shown.subscribe()
    }

    /// Approves the pending approval `id`.
    ///
    /// # Errors
    /// `nothing_to_do` if none has this id, `store_unavailable` if the grant cannot be saved.
    pub async fn approve(&self, id: &str, consent: Consent) -> Answer {
        if consent == Consent::Once {
            let asked = self.take(id)?;
            return hand(asked, Verdict::Once);
        }
        let _writing = self.0.writing.lock().await;
        let (grant, secret) = self.make_grant(id)?;
        let mut grants = self.lock().grants.clone();
        grants.push(grant.clone());
        self.save(grants.clone()).await?;
        // If the program has disconnected meanwhile, nobody knows the token.
        let handed = self
            .take(id)
            .and_then(|asked| hand(asked, Verdict::Always(grant.id, secret)));
        if handed.is_err() {
            grants.pop();
            self.save(grants).await?;
            return handed;
        }
        tracing::info!(
            grant = grant.id,
            who = grant.shown.who.title(),
            "allowed for good"
        );
        self.change(|state| state.grants.push(grant));
        Ok(())
    }

    /// Refuses the pending approval `id`.
    ///
    /// # Errors
    /// `nothing_to_do` if none has this id.
    pub fn deny(&self, id: &str) -> Answer {
        let asked = self.take(id)?;
        let until = Instant::now() + WINDOW;
        self.change(|state| {
            state.refused.truncate(REFUSED_MAX - 1);
            state.refused.push_front((asked.by, until));
        });
        hand(asked, Verdict::No)
    }

    /// Revokes a grant; open connections lose it with their next command.
    ///
    /// # Errors
    /// `nothing_to_do` if there is no such grant, `store_unavailable` if the change cannot be
    /// saved, so that the grant returns at the next start.
    pub async fn revoke(&self, grant: &str) -> Answer {
        let _writing = self.0.writing.lock().await;
        let was = self.lock().grants.len();
        self.change(|state| state.grants.retain(|kept| kept.shown.id != grant));
        let grants = self.lock().grants.clone();
        if grants.len() == was {
            let message = format!("no allowed program has the id {grant:?}");
            return Err((ErrorCode::NothingToDo, message));
        }
        self.save(grants).await
    }

    /// Requests an approval from the owner.
    pub(crate) fn ask(
        &self,
        by: Identity,
        who: Program,
        command: Command,
        within: Duration,
        now: Instant,
    ) -> Result<PendingApproval, (ErrorCode, String)> {
        let (sender, verdict) = oneshot::channel();
        let until = (self.0.world.clock)() + within;
        let id = self.change(|state| {
            state.check_ask(&by, now)?;
            state.put.push_back(now);
            state.last += 1;
            let id = state.last;
            let shown = Waiting {
                id: id.to_string(),
                who,
                command: command.as_str().to_owned(),
                until,
            };
            state.waiting.push(Asked {
                id,
                by,
                shown,
                verdict: sender,
            });
            Ok(id)
        })?;
        Ok(PendingApproval {
            id,
            verdict,
            approvals: self.clone(),
        })
    }

    /// Checks that the connected process may be looked up now: only if an approval could be requested,
    /// and at a limited rate, because the lookup walks all processes.
    pub(crate) fn check_look(&self, now: Instant) -> Result<(), (ErrorCode, String)> {
        let mut state = self.lock();
        state.check_room(now)?;
        let looks = state
            .looks
            .get_or_insert_with(|| Bucket::new(LOOKS_BURST, LOOKS_PER_SECOND, now));
        if !looks.wait(now).is_zero() {
            let message = "too many approval requests; try again in a second";
            return Err((ErrorCode::RateLimited, message.to_owned()));
        }
        looks.take();
        Ok(())
    }

    /// The grant that this token belongs to.
    pub(crate) fn find(&self, shown: &[u8]) -> Option<u64> {
        let state = self.lock();
        let grant = state.grants.iter().find(|grant| grant.token.is(shown));
        grant.map(|grant| grant.id)
    }

    /// The grant whose token this proves, and the hub's own proof under that token.
    pub(crate) fn prove(
        &self,
        challenge: &Challenge,
        proof: &Proof,
    ) -> Option<(u64, Option<Proof>)> {
        let state = self.lock();
        let is_proven = |grant: &&Grant| challenge.is_proven(&grant.token, Side::Client, proof);
        let grant = state.grants.iter().find(is_proven)?;
        Some((grant.id, challenge.proof(&grant.token, Side::Server)))
    }

    /// Whether this grant is still valid.
    pub(crate) fn holds(&self, grant: u64) -> bool {
        self.lock().grants.iter().any(|kept| kept.id == grant)
    }

    fn make_grant(&self, id: &str) -> Result<(Grant, Secret), (ErrorCode, String)> {
        let mut state = self.lock();
        let asked = state.waiting.iter().find(|asked| asked.shown.id == id);
        let who = asked.ok_or_else(|| nobody(id))?.shown.who.clone();
        if state.grants.len() >= GRANTS_MAX {
            let message = format!("{GRANTS_MAX} programs are allowed already; revoke one first");
            return Err((ErrorCode::QueueFull, message));
        }
        state.last_grant += 1;
        let id = state.last_grant;
        let shown = Allowed {
            id: id.to_string(),
            who,
            since: (self.0.world.clock)(),
        };
        let token = LocalToken::new((self.0.world.random)());
        let secret = Secret::new(token.expose().to_owned());
        Ok((Grant { id, shown, token }, secret))
    }

    fn take(&self, id: &str) -> Result<Asked, (ErrorCode, String)> {
        self.change(|state| {
            let at = state.waiting.iter().position(|asked| asked.shown.id == id);
            at.map(|at| state.waiting.remove(at))
                .ok_or_else(|| nobody(id))
        })
    }

    /// Changes the state, and publishes it if the visible part changed.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let pairs = state.pairs();
        self.0.shown.send_if_modified(|shown| {
            let is_new = **shown != pairs;
            *shown = Arc::new(pairs);
            is_new
        });
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// A list that could not be read is renamed, not overwritten: its owner may want it back.
    async fn save(&self, grants: Vec<Grant>) -> Answer {
        let (file, now) = (self.0.file.clone(), (self.0.world.clock)());
        let unread = self.lock().unread;
        let saved = spawn_blocking(move || {
            if unread {
                set_aside(&file, now)?;
            }
            save(&file, &grants)
        });
        let problem = match saved.await {
            Ok(Ok(())) => {
                self.lock().unread = false;
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let message = format!("the list of allowed programs cannot be written: {problem}");
        Err((ErrorCode::StoreUnavailable, message))
    }
}

impl State {
    fn pairs(&self) -> Pairs {
        Pairs {
            waiting: self
                .waiting
                .iter()
                .map(|asked| asked.shown.clone())
                .collect(),
            allowed: self
                .grants
                .iter()
                .map(|grant| grant.shown.clone())
                .collect(),
        }
    }

    fn check_room(&mut self, now: Instant) -> Result<(), (ErrorCode, String)> {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= WINDOW;
        while self.put.front().is_some_and(is_old) {
            self.put.pop_front();
        }
        let busy = |message: &str| Err((ErrorCode::RateLimited, message.to_owned()));
        if self.waiting.len() >= WAITING_MAX {
            return busy("too many programs are waiting for approval; try again later");
        }
        if self.put.len() >= ASKED_MAX {
            return busy("too many approval requests in the last minutes; try again later");
        }
        Ok(())
    }

    fn check_ask(&mut self, by: &Identity, now: Instant) -> Result<(), (ErrorCode, String)> {
        self.refused.retain(|(_, until)| *until > now);
        if self.refused.iter().any(|(refused, _)| refused == by) {
            let message = "the owner refused this program recently";
            return Err((ErrorCode::ApprovalDenied, message.to_owned()));
        }
        if self.waiting.iter().any(|asked| asked.by == *by) {
            let message = "another command of this program is waiting for approval";
            return Err((ErrorCode::RateLimited, message.to_owned()));
        }
        self.check_room(now)
    }
}

impl Drop for PendingApproval {
    fn drop(&mut self) {
        let id = self.id;
        self.approvals
            .change(|state| state.waiting.retain(|asked| asked.id != id));
    }
}

fn hand(asked: Asked, verdict: Verdict) -> Answer {
    let id = asked.shown.id;
    asked.verdict.send(verdict).map_err(|_| nobody(&id))
}

fn nobody(id: &str) -> (ErrorCode, String) {
    let message = format!("no pending approval has the id {id:?}");
    (ErrorCode::NothingToDo, message)
}
