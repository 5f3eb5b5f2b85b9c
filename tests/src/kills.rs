//! Kills of relay and agents and power cuts under load, and an agent that is suspended past its
//! lease. The [`crate::auditor`] judges the requesters' logs.

use std::{collections::BTreeMap, fmt, io, time::Duration};

use proto::limits::ATTEMPTS_MAX;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    auditor::{Note, Seen, Verdict, evidence, judge},
    chance::Chance,
    cluster::Cluster,
    crowd::{Crowd, Load},
    late::LateWorker,
    process::PATIENCE,
    tagged_engine::{EngineBehavior, Question},
};

/// A fault to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// Kills the relay.
    Relay,
    /// Kills one of the agents.
    Agent,
    /// Cuts the power of the relay's disk; what was not synced is lost.
    Power,
    /// Stops the relay gracefully and restarts it.
    Drain,
    /// Breaks the connection of one agent for a second.
    Cut,
    /// Holds all traffic of one agent for a while, then passes it on.
    Held,
}

impl Blow {
    const fn name(self) -> &'static str {
        match self {
            Self::Relay => "kill of the relay",
            Self::Agent => "kill of an agent",
            Self::Power => "power cut",
            Self::Drain => "drain of the relay",
            Self::Cut => "line cut",
            Self::Held => "line held",
        }
    }
}

/// The faults and the load of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The faults, in order.
    pub blows: Vec<Blow>,
    /// Whether an agent is first suspended past its lease.
    pub oversleep: bool,
    /// Whether one job kills every agent that takes it, until it is dead.
    pub poison: bool,
    /// Number of questions between two faults.
    pub between: u64,
    /// The questions.
    pub load: Load,
    /// Number of agents.
    pub agents: usize,
    /// The seed for the choice of agents and the exact moments.
    pub seed: u64,
}

impl Plan {
    /// Kills of relay and agents, alternating in the first half, then random. At 300 answers a
    /// second, one every three seconds.
    #[must_use]
    pub fn kills(count: usize, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let mut blow = |n| match n {
            n if n >= count / 2 && chance.below(2) == 0 => Blow::Relay,
            n if n >= count / 2 => Blow::Agent,
            n if n % 2 == 0 => Blow::Relay,
            _ => Blow::Agent,
        };
        Self {
            blows: (0..count).map(&mut blow).collect(),
            oversleep: true,
            poison: false,
            between: 900,
            load: Load {
                canary: format!("canary{seed:x}"),
                at_once: 300,
                words: 4,
                pause: Duration::from_millis(10),
                faulty_every: 0,
            },
            agents: 3,
            seed,
        }
    }

    /// Power cuts only.
    #[must_use]
    pub fn power_cuts(count: usize, seed: u64) -> Self {
        let mut plan = Self::kills(0, seed);
        plan.blows = vec![Blow::Power; count];
        plan.oversleep = false;
        plan.between = 100;
        plan.load.at_once = 100;
        plan
    }

    /// All other faults: connections, engines, restarts, and a job that kills.
    #[must_use]
    pub fn weather(rounds: usize, seed: u64) -> Self {
        let mut plan = Self::power_cuts(0, seed);
        let round = [
            Blow::Drain,
            Blow::Cut,
            Blow::Held,
            Blow::Agent,
            Blow::Cut,
            Blow::Relay,
        ];
        plan.blows = round.repeat(rounds);
        plan.load.faulty_every = 7;
        plan.poison = true;
        plan
    }

    /// A lighter load, for everyday tests.
    #[must_use]
    pub fn light(mut self) -> Self {
        self.between = 40;
        self.load.at_once = 100;
        self
    }
}

/// The results of a run.
#[derive(Debug)]
pub struct Report {
    /// The results of the questions.
    pub verdict: Verdict,
    /// The log lines of the questions with a fault.
    pub evidence: Vec<String>,
    /// The injected faults, with their numbers.
    pub faults: BTreeMap<&'static str, usize>,
    /// Time from the first fault until all answers had ended.
    pub took: Duration,
    /// Answers per second in that time.
    pub rate: f64,
    /// All logs, and the bodies of refusals.
    pub said: Vec<String>,
    /// Secrets that must not be in `said`.
    pub secrets: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, count) in &self.faults {
            write!(f, "{count} × {fault}, ")?;
        }
        let (took, rate) = (self.took.as_secs_f64(), self.rate);
        let verdict = &self.verdict;
        write!(f, "in {took:.0} s at {rate:.0} answers a second: {verdict}")?;
        for note in &self.evidence {
            write!(f, "\n    {note}")?;
        }
        Ok(())
    }
}

/// Timeout of an acknowledged question.
const ENDED_WITHIN: Duration = Duration::from_secs(150);
/// Time for which a connection stays broken.
const SHORTLY: Duration = Duration::from_secs(1);
/// The fault of a lease that expired while its holder was suspended.
pub const OVERSLEPT: &str = "lease overslept";
/// Maximum time for a resumed agent to notice that its lease is lost.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);

/// Runs the plan.
///
/// # Errors
/// If it cuts power and no disk can be mounted here, which needs root.
///
/// # Panics
/// If a part cannot be started, or does not do what the plan needs.
pub async fn run(plan: &Plan) -> io::Result<Report> {
    let mut cluster = Cluster::new(plan.agents, 16).await;
    let (address, keys) = (cluster.bed.address, cluster.keys.clone());
    let mut crowd = Crowd::new(address, keys, plan.load.clone(), ENDED_WITHIN);
    if plan.blows.contains(&Blow::Power) {
        cluster.put_on_a_disk().await?;
    }
    let mut faults = BTreeMap::new();
    if plan.oversleep {
        let overslept = oversleep(&mut cluster, &mut crowd, plan).await;
        faults.insert(OVERSLEPT, overslept as usize);
    } else {
        for n in 0..plan.agents {
            cluster.start_agent(n).await;
        }
    }
    if plan.poison {
        faults.insert(
            "agent killed by its job",
            poison(&mut cluster, &mut crowd, plan).await,
        );
    }
    for blow in &plan.blows {
        *faults.entry(blow.name()).or_default() += 1;
    }

    let (began, before) = (Instant::now(), crowd.answered());
    let answered = crowd.progress();
    let ((), hit) = tokio::join!(
        crowd.ask(plan.between * (plan.blows.len() as u64 + 1)),
        strike(&mut cluster, answered, plan)
    );
    hit?;
    crowd.all_ended().await;
    let took = began.elapsed();
    let rate = (crowd.answered() - before) as f64 / took.as_secs_f64();
    crowd.read_again().await;
    let mut said = cluster.said().await;
    said.extend(crowd.refusals());
    faults.extend(cluster.tagged_engine.faults());
    let secrets = cluster
        .secrets()
        .chain([plan.load.canary.clone()])
        .collect();
    let notes = crowd.notes();
    let verdict = judge(&notes);
    Ok(Report {
        evidence: evidence(&notes, &verdict),
        verdict,
        faults,
        secrets,
        took,
        rate,
        said,
    })
}

/// Injects the faults, each after a number of further answers.
async fn strike(
    cluster: &mut Cluster,
    mut answered: watch::Receiver<usize>,
    plan: &Plan,
) -> io::Result<()> {
    let mut chance = Chance::new(plan.seed);
    for blow in &plan.blows {
        let wanted = *answered.borrow() + plan.between as usize / 2;
        let more = answered.wait_for(|answered| *answered >= wanted);
        // After the timeout, the fault is injected with fewer answers.
        drop(timeout(PATIENCE / 10, more).await);
        // A random moment in the relay's work.
        sleep(Duration::from_micros(chance.below(20_000))).await;
        match blow {
            Blow::Relay => {
                cluster.kill_relay().await;
                cluster.bed.start_relay().await;
            }
            Blow::Agent => {
                let which = chance.below(cluster.hands.len() as u64) as usize;
                cluster.kill_agent(which).await;
                cluster.start_agent(which).await;
            }
            Blow::Power => cluster.cut_power().await?,
            Blow::Drain => {
                cluster.drain_relay().await;
                cluster.bed.start_relay().await;
            }
            Blow::Cut => {
                let line = &cluster.hands[chance.below(cluster.hands.len() as u64) as usize].line;
                line.cut();
                sleep(SHORTLY).await;
                line.mend();
            }
            Blow::Held => {
                let line = &cluster.hands[chance.below(cluster.hands.len() as u64) as usize].line;
                line.hold();
                sleep(3 * SHORTLY).await;
                line.mend();
            }
        }
    }
    Ok(())
}

/// Asks a question that kills its agent: it fails after the maximum number of attempts and delays
/// no other. Returns the number of kills.
async fn poison(cluster: &mut Cluster, crowd: &mut Crowd, plan: &Plan) -> usize {
    let question = Question {
        name: format!("{}-poison", plan.load.canary),
        words: 2 * HALF as u64,
        pause: Duration::ZERO,
        behavior: EngineBehavior::Poison,
        only: Some(cluster.name(0).to_owned()),
    };
    let name = question.name.clone();
    crowd.ask_this(question).await;
    let tagged_engine = cluster.tagged_engine.clone();
    let killing = async {
        for times in 1..=ATTEMPTS_MAX {
            let begun = tagged_engine.until_begun(&name, u64::from(times));
            within("the job that kills is tried again", begun).await;
            cluster.kill_agent(0).await;
            cluster.start_agent(0).await;
        }
    };
    tokio::join!(killing, crowd.ask(plan.between));
    let ended = |notes: &[Note]| {
        let about = |note: &&Note| note.question == name;
        notes
            .iter()
            .filter(about)
            .any(|note| matches!(note.seen, Seen::Ended(..)))
    };
    within("the job that kills is given up", crowd.until(ended)).await;
    ATTEMPTS_MAX as usize
}

/// Number of words after which a slow answer stops.
const HALF: usize = 4;

/// Lets two workers fall silent in the middle of an answer until their leases have expired and
/// another attempt has begun: an agent that is suspended and resumed, and a worker that sends the
/// rest of its answer. Returns the number of expired leases.
async fn oversleep(cluster: &mut Cluster, crowd: &mut Crowd, plan: &Plan) -> u64 {
    let question = |name: &str, behavior| Question {
        name: format!("{}-{name}", plan.load.canary),
        words: 2 * HALF as u64,
        pause: Duration::ZERO,
        behavior,
        only: None,
    };
    let (slept, late) = (
        question("overslept", EngineBehavior::Stall),
        question("late", EngineBehavior::Halt),
    );
    crowd.ask_this(late.clone()).await;
    let worker = LateWorker::begin(&cluster.bed, late.clone()).await;
    crowd.ask_this(slept.clone()).await;
    cluster.start_agent(0).await;
    let begun = crowd.until(|notes| half(notes, &slept.name, false));
    within("the first agent has half an answer", begun).await;
    let sleeper = cluster.hands[0].agent.take();
    if let Some(agent) = &sleeper {
        agent.freeze();
    }
    for n in 1..cluster.hands.len() {
        cluster.start_agent(n).await;
    }
    cluster.tagged_engine.go_on();
    crowd.ask(plan.between).await;
    let again = |notes: &[Note]| half(notes, &slept.name, true) && half(notes, &late.name, true);
    within("another agent has half of both answers", crowd.until(again)).await;
    let left = cluster.ollama.left();
    if let Some(agent) = &sleeper {
        agent.thaw();
    }
    cluster.hands[0].agent = sleeper;
    // No assertion here if the relay accepts more lines: the auditor then finds them in the answer.
    worker.finish(&cluster.bed).await;
    drop(timeout(NOTICED_WITHIN, cluster.ollama.until_left(left + 1)).await);
    cluster.tagged_engine.finish();
    cluster.tagged_engine.runs_of(&slept.name) - 1 + cluster.tagged_engine.runs_of(&late.name)
}

/// Whether half of this answer was seen, of its second attempt if `again`.
fn half(notes: &[Note], name: &str, again: bool) -> bool {
    let about = notes.iter().filter(|note| note.question == name);
    let restarted = |note: &&Note| matches!(note.seen, Seen::Restarted(_));
    let since = about.skip_while(|note| again && !restarted(note));
    since
        .filter(|note| matches!(note.seen, Seen::Piece(..)))
        .count()
        >= HALF
}

async fn within(what: &str, event: impl Future<Output = ()>) {
    assert!(timeout(2 * PATIENCE, event).await.is_ok(), "never: {what}");
}
