//! The HTTP carrier: long polls for jobs, and posts of their answers.

mod requests;

use std::{
    collections::HashSet,
    future::{self, Future},
    pin::Pin,
    sync::Arc,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use proto::{
    Body, Detail, ErrorCode, LeaseToken,
    status::CarrierKind,
    worker::{DetailsAnswer, PollAnswer},
};
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::requests::{Polled, Posted, extend, poll, post, tell_details};
use super::Relay;
use crate::{JobTable, LinkEnd};

/// Maximum number of concurrent posts.
const POSTS_MAX: usize = 8;
/// Approximate maximum size of the details in one post, in bytes.
const DETAILS_MAX: usize = 256 * 1024;
/// Part of the hold by which each one may be shorter, so that workers whose polls were answered
/// together do not poll together from then on. None is longer: the relay would end it at its own
/// limit, which is the same for all.
const SPREAD: f64 = 0.2;
/// Shortest hold worth requesting.
const HOLD_MIN: Duration = Duration::from_secs(2);
/// Interval of polls that are not held.
const PLAIN: Duration = Duration::from_secs(5);

type Poll<'a> = Pin<Box<dyn Future<Output = (u64, Result<Polled, LinkEnd>)> + Send + 'a>>;
type DetailsPost<'a> =
    Pin<Box<dyn Future<Output = (u64, Result<DetailsAnswer, LinkEnd>)> + Send + 'a>>;
type Post<'a> = Pin<Box<dyn Future<Output = (LeaseToken, Result<Posted, LinkEnd>)> + Send + 'a>>;

/// Polls until that fails, until `stop`, or until a WebSocket may be tried again.
pub(super) async fn session(
    relay: &Relay,
    table: &Arc<JobTable>,
    websocket_after: Option<Instant>,
    stop: &CancellationToken,
) -> LinkEnd {
    // On this carrier, sending again reveals the state of a lease.
    table.open(true);
    let mut polling = Polling {
        relay,
        table,
        hold: relay.tuning.poll_hold,
        report_told: 0,
        report_hurried: 0,
        details_told: 0,
        telling: None,
        proven: false,
        relay_drains: false,
        poll: None,
        poll_from: Instant::now(),
        free: 0,
        urgent: 0,
        posts: FuturesUnordered::new(),
        busy: HashSet::new(),
        gaps: HashSet::new(),
    };
    let end = tokio::select! {
        end = polling.run(websocket_after) => end,
        () = table.woken() => LinkEnd::Woken,
        () = stop.cancelled() => LinkEnd::Stopped,
    };
    match end {
        // There is no simpler carrier to fall back to.
        LinkEnd::Blocked(problem) => LinkEnd::NotTheRelay(problem),
        end @ (LinkEnd::Stopped
        | LinkEnd::Woken
        | LinkEnd::Lost { .. }
        | LinkEnd::Upgrade
        | LinkEnd::Later { .. }
        | LinkEnd::Restarting { .. }
        | LinkEnd::Unauthorized(_)
        | LinkEnd::NotTheRelay(_)) => end,
    }
}

struct Polling<'a> {
    relay: &'a Relay,
    table: &'a Arc<JobTable>,
    hold: Duration,
    report_told: u64,
    /// Number of the report last sent with a post of a job, between polls.
    report_hurried: u64,
    details_told: u64,
    /// The pending post of details, and the number up to which it sends them.
    telling: Option<DetailsPost<'a>>,
    /// Whether a poll of this session was answered.
    proven: bool,
    /// Whether the relay is shutting down: only running jobs are still reported.
    relay_drains: bool,
    poll: Option<Poll<'a>>,
    /// Start of the pending poll, or earliest start of the next one.
    poll_from: Instant,
    /// Number of slots for which the pending poll requests jobs.
    free: u32,
    /// Number of urgent jobs, which need no slot, it requests in addition.
    urgent: u32,
    posts: FuturesUnordered<Post<'a>>,
    /// Leases with a pending post: posts of one lease keep their order.
    busy: HashSet<LeaseToken>,
    /// Leases for which the relay reported a gap, and for which nothing was stored since.
    gaps: HashSet<LeaseToken>,
}

impl<'a> Polling<'a> {
    async fn run(&mut self, websocket_after: Option<Instant>) -> LinkEnd {
        let heartbeat = self.relay.tuning.heartbeat;
        loop {
            self.start_posts(heartbeat);
            if self.relay_drains && self.table.held().is_empty() {
                return LinkEnd::Restarting { after: None };
            }
            self.start_poll();
            self.start_telling();
            let next_due = self.table.next_due(heartbeat);
            let waiting = self.poll.is_none();
            let happened = tokio::select! {
                () = self.table.changed() => Ok(()),
                Some((token, posted)) = self.posts.next() => self.posted(token, posted),
                (number, answer) = under_way(&mut self.poll) => {
                    self.poll = None;
                    match self.polled(number, answer) {
                        Ok(()) if websocket_after.is_some_and(|at| at <= Instant::now()) => {
                            Err(LinkEnd::Upgrade)
                        }
                        polled => polled,
                    }
                }
                (number, answer) = under_way(&mut self.telling) => {
                    self.telling = None;
                    self.told(number, answer)
                }
                () = sleep_until(self.poll_from), if waiting => Ok(()),
                () = sleep_until(next_due.unwrap_or(self.poll_from)), if next_due.is_some() => Ok(()),
            };
            if let Err(end) = happened {
                return end;
            }
        }
    }

    fn start_posts(&mut self, heartbeat: Duration) {
        while self.posts.len() < POSTS_MAX {
            let Some(outgoing) = self.table.next(|token| self.busy.contains(&token)) else {
                break;
            };
            let token = outgoing.token();
            self.busy.insert(token);
            let told = self.report_told.max(self.report_hurried);
            let report = self.table.report_before(told).map(|(number, report)| {
                self.report_hurried = number;
                report
            });
            self.posts
                .push(Box::pin(post(self.relay, report, outgoing)));
        }
        for token in self.table.take_due(heartbeat) {
            if self.busy.insert(token) {
                self.posts.push(Box::pin(extend(self.relay, token)));
            }
        }
    }

    /// Starts sending the details of the engine's models, a limited number of bytes at a time.
    fn start_telling(&mut self) {
        if self.telling.is_some() || !self.proven {
            return;
        }
        let (mut number, mut bytes, mut details) = (self.details_told, 0, Vec::new());
        while bytes < DETAILS_MAX
            && let Some((next, detail)) = self.table.detail_after(number)
        {
            number = next;
            bytes += match &detail {
                Detail::Show(show) => show.show.get().len(),
                Detail::Running(running) => running.iter().map(|entry| entry.get().len()).sum(),
            };
            details.push(detail);
        }
        if !details.is_empty() {
            self.telling = Some(Box::pin(tell_details(self.relay, number, details)));
        }
    }

    fn told(&mut self, number: u64, answer: Result<DetailsAnswer, LinkEnd>) -> Result<(), LinkEnd> {
        if answer?.report_wanted {
            // The relay restarted, and reports that to the next poll, too.
            self.details_told = 0;
            self.proven = false;
        } else {
            self.details_told = number;
        }
        Ok(())
    }

    fn start_poll(&mut self) {
        let held = self.table.at_work();
        let (capacity, (free, urgent)) = (self.table.capacity(), self.table.free());
        // A pending poll may be abandoned if its parameters are outdated. One that requests no jobs
        // for slots hardly loses any (a lost request to load a model is leased again). One that is
        // held and requests jobs that must not arrive now would more likely deliver a job than lose
        // one.
        let may_ask_now = self.free == 0 && (free > 0 || (self.urgent == 0 && urgent > 0));
        let must_not_ask = self.free + self.urgent > 0 && capacity == 0 && !self.wait().is_zero();
        let is_outdated = self.poll.is_some() && (may_ask_now || must_not_ask);
        let may_begin = self.poll.is_none() && self.poll_from <= Instant::now();
        if !is_outdated && !may_begin {
            return;
        }
        let report = self.table.report_after(self.report_told);
        let number = report
            .as_ref()
            .map_or(self.report_told, |(number, _)| *number);
        self.free = free;
        self.urgent = urgent;
        self.poll_from = Instant::now();
        let report = report.map(|(_, report)| report);
        let wait = spread(self.wait(), self.relay.tuning.random.draw());
        let free = (free, urgent);
        self.poll = Some(Box::pin(poll(self.relay, held, free, wait, number, report)));
    }

    /// Time for which the relay is to hold a poll. The first poll is not held: it shows that the
    /// link works.
    const fn wait(&self) -> Duration {
        if self.proven {
            self.hold
        } else {
            Duration::ZERO
        }
    }

    fn link_up(&self) {
        self.table.link_up(if self.hold.is_zero() {
            CarrierKind::Poll
        } else {
            CarrierKind::LongPoll
        });
    }

    fn polled(&mut self, number: u64, polled: Result<Polled, LinkEnd>) -> Result<(), LinkEnd> {
        let took = self.poll_from.elapsed();
        let Polled { answer, drains } = match polled {
            Ok(polled) => polled,
            Err(end) => return self.poll_failed(end, took),
        };
        let asked_to_hold = !self.wait().is_zero();
        self.proven = true;
        self.relay_drains = drains;
        self.link_up();
        self.report_told = number;
        if answer.report_wanted {
            (self.report_told, self.details_told) = (0, 0);
        }
        // A poll that ended early because a report was due was held.
        let brought_nothing =
            answer == PollAnswer::default() && self.table.report_before(number).is_none();
        for lease in answer.leases {
            self.table.lease(lease.head, Body::from(lease.body));
        }
        for token in answer.cancelled {
            self.table.cancel(token);
        }
        for token in answer.gone {
            self.table.closed(token, Some(ErrorCode::StaleLease));
        }
        let pause = if self.hold.is_zero() {
            PLAIN
        } else if asked_to_hold && brought_nothing && took < HOLD_MIN {
            // The poll was not held although requested: wait, instead of polling as fast as the
            // network permits.
            Duration::from_secs(1) + PLAIN.mul_f64(self.relay.tuning.random.draw())
        } else {
            Duration::ZERO
        };
        self.poll_from = Instant::now() + pause;
        Ok(())
    }

    /// Handles a failed poll. A held poll that was cut may have been held too long for a proxy, so
    /// the next one is held for half the time.
    fn poll_failed(&mut self, end: LinkEnd, took: Duration) -> Result<(), LinkEnd> {
        let was_cut = matches!(end, LinkEnd::Lost { reached: true, .. });
        let was_held = !self.hold.is_zero() && took >= self.hold / 10;
        if !(self.proven && was_cut && was_held) {
            return Err(end);
        }
        self.hold /= 2;
        if self.hold < HOLD_MIN {
            self.hold = Duration::ZERO;
        }
        tracing::info!(hold = ?self.hold, "a held poll was cut off; holding shorter");
        self.poll_from = Instant::now();
        Ok(())
    }

    fn posted(
        &mut self,
        token: LeaseToken,
        posted: Result<Posted, LinkEnd>,
    ) -> Result<(), LinkEnd> {
        self.busy.remove(&token);
        let posted = posted?;
        self.link_up();
        let had_gap = self.gaps.remove(&token);
        match posted {
            Posted::Lines(answer) => {
                self.table.stored(token, answer.stored);
                if answer.cancelled {
                    self.table.cancel(token);
                }
            }
            Posted::Closed => self.table.closed(token, None),
            Posted::Gone(code) => self.table.closed(token, Some(code)),
            // Everything available was already sent again, and the missing line is not in it.
            Posted::Gap if had_gap => self.table.cannot_continue(token),
            Posted::Gap => {
                self.gaps.insert(token);
                self.table.rewind(token);
            }
        }
        Ok(())
    }
}

/// Returns the hold of one poll; `random` is in `0.0..1.0`.
fn spread(hold: Duration, random: f64) -> Duration {
    hold.mul_f64(1.0 - SPREAD * random.clamp(0.0, 1.0))
}

async fn under_way<F: Future + Unpin>(request: &mut Option<F>) -> F::Output {
    match request {
        Some(request) => request.await,
        None => future::pending().await,
    }
}
