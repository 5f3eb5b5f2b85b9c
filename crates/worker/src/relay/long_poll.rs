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
use crate::{Desk, LinkEnd};

/// Most posts under way at once.
const POSTS_MAX: usize = 8;
/// About how many bytes of details go into one post.
const DETAILS_MAX: usize = 256 * 1024;
/// Holding for less than this is not worth asking for.
const HOLD_MIN: Duration = Duration::from_secs(2);
/// Time between polls that are not held.
const PLAIN: Duration = Duration::from_secs(5);

type Poll<'a> = Pin<Box<dyn Future<Output = (u64, Result<Polled, LinkEnd>)> + Send + 'a>>;
type Telling<'a> = Pin<Box<dyn Future<Output = (u64, Result<DetailsAnswer, LinkEnd>)> + Send + 'a>>;
type Post<'a> = Pin<Box<dyn Future<Output = (LeaseToken, Result<Posted, LinkEnd>)> + Send + 'a>>;

/// Polls until that fails, until it is asked to stop, or until a WebSocket may be tried again.
pub(super) async fn session(
    relay: &Relay,
    desk: &Arc<Desk>,
    websocket_after: Option<Instant>,
    stop: &CancellationToken,
) -> LinkEnd {
    // Here, to send again is to ask what became of a lease.
    desk.open(true);
    let mut polling = Polling {
        relay,
        desk,
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
        () = desk.woken() => LinkEnd::Woken,
        () = stop.cancelled() => LinkEnd::Stopped,
    };
    match end {
        // Nothing simpler is left to fall back to.
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
    desk: &'a Arc<Desk>,
    hold: Duration,
    report_told: u64,
    /// Up to which number a post of a job told the report, between polls.
    report_hurried: u64,
    details_told: u64,
    /// A post of details under way, and up to where it tells them.
    telling: Option<Telling<'a>>,
    /// A poll of this session was answered.
    proven: bool,
    /// The relay is going down: only what runs is still told.
    relay_drains: bool,
    poll: Option<Poll<'a>>,
    /// When the poll under way began, or when the next may begin.
    poll_from: Instant,
    /// For how many slots the poll under way asked for jobs.
    free: u32,
    /// How many jobs that wait for no slot it asked for besides.
    urgent: u32,
    posts: FuturesUnordered<Post<'a>>,
    /// Leases with a post under way: posts of one lease keep their order.
    busy: HashSet<LeaseToken>,
    /// Leases of which a line was missing at the relay, and nothing was stored since.
    gaps: HashSet<LeaseToken>,
}

impl<'a> Polling<'a> {
    async fn run(&mut self, websocket_after: Option<Instant>) -> LinkEnd {
        let heartbeat = self.relay.tuning.heartbeat;
        loop {
            self.start_posts(heartbeat);
            if self.relay_drains && self.desk.held().is_empty() {
                return LinkEnd::Restarting { after: None };
            }
            self.start_poll();
            self.start_telling();
            let next_due = self.desk.next_due(heartbeat);
            let waiting = self.poll.is_none();
            let happened = tokio::select! {
                () = self.desk.changed() => Ok(()),
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
            let Some(outgoing) = self.desk.next(|token| self.busy.contains(&token)) else {
                break;
            };
            let token = outgoing.token();
            self.busy.insert(token);
            let told = self.report_told.max(self.report_hurried);
            let report = self.desk.report_before(told).map(|(number, report)| {
                self.report_hurried = number;
                report
            });
            self.posts
                .push(Box::pin(post(self.relay, report, outgoing)));
        }
        for token in self.desk.take_due(heartbeat) {
            if self.busy.insert(token) {
                self.posts.push(Box::pin(extend(self.relay, token)));
            }
        }
    }

    /// Tells what is known of the engine's models, a bounded number of bytes at a time.
    fn start_telling(&mut self) {
        if self.telling.is_some() || !self.proven {
            return;
        }
        let (mut number, mut bytes, mut details) = (self.details_told, 0, Vec::new());
        while bytes < DETAILS_MAX
            && let Some((next, detail)) = self.desk.detail_after(number)
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
            // It restarted, and says so to the next poll too.
            self.details_told = 0;
            self.proven = false;
        } else {
            self.details_told = number;
        }
        Ok(())
    }

    fn start_poll(&mut self) {
        let held = self.desk.at_work();
        let (capacity, (free, urgent)) = (self.desk.capacity(), self.desk.free());
        // A poll that asks for no job in a slot hardly loses one on its way, so it may be given up
        // (a load that is lost so is lent again). One that is held and asks for jobs that must not
        // come now would more likely bring than lose one.
        let may_ask_now = self.free == 0 && (free > 0 || (self.urgent == 0 && urgent > 0));
        let must_not_ask = self.free + self.urgent > 0 && capacity == 0 && !self.wait().is_zero();
        let is_outdated = self.poll.is_some() && (may_ask_now || must_not_ask);
        let may_begin = self.poll.is_none() && self.poll_from <= Instant::now();
        if !is_outdated && !may_begin {
            return;
        }
        let report = self.desk.report_after(self.report_told);
        let number = report
            .as_ref()
            .map_or(self.report_told, |(number, _)| *number);
        self.free = free;
        self.urgent = urgent;
        self.poll_from = Instant::now();
        let report = report.map(|(_, report)| report);
        let wait = self.wait();
        let free = (free, urgent);
        self.poll = Some(Box::pin(poll(self.relay, held, free, wait, number, report)));
    }

    /// How long the relay is to hold a poll. The first is not held: it shows that the link stands.
    const fn wait(&self) -> Duration {
        if self.proven {
            self.hold
        } else {
            Duration::ZERO
        }
    }

    fn link_up(&self) {
        self.desk.link_up(if self.hold.is_zero() {
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
        // One that ended because of what was told meanwhile was held.
        let brought_nothing =
            answer == PollAnswer::default() && self.desk.report_before(number).is_none();
        for lease in answer.leases {
            self.desk.lease(lease.head, Body::from(lease.body));
        }
        for token in answer.cancelled {
            self.desk.cancel(token);
        }
        for token in answer.gone {
            self.desk.closed(token, Some(ErrorCode::StaleLease));
        }
        let pause = if self.hold.is_zero() {
            PLAIN
        } else if asked_to_hold && brought_nothing && took < HOLD_MIN {
            // It was not held after all: do not ask as fast as the network allows.
            Duration::from_secs(1) + PLAIN.mul_f64(self.relay.tuning.random.draw())
        } else {
            Duration::ZERO
        };
        self.poll_from = Instant::now() + pause;
        Ok(())
    }

    /// A held poll that is cut was perhaps held too long for a proxy on the way.
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
        tracing::info!(hold = ?self.hold, "a held poll was cut; holding shorter");
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
                self.desk.stored(token, answer.stored);
                if answer.cancelled {
                    self.desk.cancel(token);
                }
            }
            Posted::Closed => self.desk.closed(token, None),
            Posted::Gone(code) => self.desk.closed(token, Some(code)),
            // What is kept was sent again, and it is not that.
            Posted::Gap if had_gap => self.desk.cannot_continue(token),
            Posted::Gap => {
                self.gaps.insert(token);
                self.desk.rewind(token);
            }
        }
        Ok(())
    }
}

async fn under_way<F: Future + Unpin>(request: &mut Option<F>) -> F::Output {
    match request {
        Some(request) => request.await,
        None => future::pending().await,
    }
}
