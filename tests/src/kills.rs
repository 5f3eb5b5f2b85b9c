//! Kills of relay and agents and power cuts under load, and one agent that sleeps past its lease
//! and wakes up: what the requesters wrote down is judged by the [`crate::auditor`].

use std::{collections::BTreeMap, fmt, io, time::Duration};

use proto::limits::ATTEMPTS_MAX;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    auditor::{Note, Seen, Verdict, evidence, judge},
    chance::Chance,
    crowd::{Crowd, Load},
    farm::Farm,
    late::LateWorker,
    marked::{Manner, Question},
    process::PATIENCE,
};

/// What is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// The relay is killed.
    Relay,
    /// One of the agents is killed.
    Agent,
    /// The relay's machine loses its power, and with it what was not synced to its disk.
    Power,
    /// The relay is asked to end, ends in order, and is started again.
    Drain,
    /// The line of one of the agents breaks for a second.
    Cut,
    /// The line of one of the agents passes nothing on for a while, and then everything.
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

/// How hard it is tried.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One after the other.
    pub blows: Vec<Blow>,
    /// Whether an agent oversleeps its lease before that.
    pub oversleep: bool,
    /// Whether a job kills whatever agent takes it, until it is given up.
    pub poison: bool,
    /// How many questions are asked between two of them.
    pub between: u64,
    /// What is asked.
    pub load: Load,
    /// How many agents there are.
    pub agents: usize,
    /// Decides which agent is killed, and when exactly.
    pub seed: u64,
}

impl Plan {
    /// Kills of relay and agents, the first half in turn, then as the seed will have it. At 300
    /// answers a second there is one every three seconds.
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

    /// Power cuts and nothing else.
    #[must_use]
    pub fn power_cuts(count: usize, seed: u64) -> Self {
        let mut plan = Self::kills(0, seed);
        plan.blows = vec![Blow::Power; count];
        plan.oversleep = false;
        plan.between = 100;
        plan.load.at_once = 100;
        plan
    }

    /// Everything else that can go wrong: lines, engines, drains, and a job that kills.
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

    /// With less load, for every day.
    #[must_use]
    pub fn light(mut self) -> Self {
        self.between = 40;
        self.load.at_once = 100;
        self
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// What became of the questions.
    pub verdict: Verdict,
    /// What was noted of those with which something is wrong.
    pub evidence: Vec<String>,
    /// What was done to the parts, and how often.
    pub faults: BTreeMap<&'static str, usize>,
    /// How long it took from the first blow until everything had ended.
    pub took: Duration,
    /// Answers a second in that time.
    pub rate: f64,
    /// What was logged, and what refusals said.
    pub said: Vec<String>,
    /// What must not be in it.
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

/// How long what was acknowledged is waited for.
const ENDED_WITHIN: Duration = Duration::from_secs(150);
/// How long a line stays broken.
const SHORTLY: Duration = Duration::from_secs(1);
/// A lease that ran out while its holder slept.
pub const OVERSLEPT: &str = "lease overslept";
/// How long a sleeper that woke up may take to see that its work is void.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);

/// Does it.
///
/// # Errors
/// If power shall be cut and no disk can be mounted here, which wants root.
///
/// # Panics
/// If a part cannot be started or does not do what the plan needs it to do.
pub async fn run(plan: &Plan) -> io::Result<Report> {
    let mut farm = Farm::new(plan.agents, 16).await;
    let (address, keys) = (farm.stand.address, farm.keys.clone());
    let mut crowd = Crowd::new(address, keys, plan.load.clone(), ENDED_WITHIN);
    if plan.blows.contains(&Blow::Power) {
        farm.put_on_a_disk().await?;
    }
    let mut faults = BTreeMap::new();
    if plan.oversleep {
        let overslept = oversleep(&mut farm, &mut crowd, plan).await;
        faults.insert(OVERSLEPT, overslept as usize);
    } else {
        for n in 0..plan.agents {
            farm.start_agent(n).await;
        }
    }
    if plan.poison {
        faults.insert(
            "agent killed by its job",
            poison(&mut farm, &mut crowd, plan).await,
        );
    }
    for blow in &plan.blows {
        *faults.entry(blow.name()).or_default() += 1;
    }

    let (began, before) = (Instant::now(), crowd.answered());
    let answered = crowd.progress();
    let ((), hit) = tokio::join!(
        crowd.ask(plan.between * (plan.blows.len() as u64 + 1)),
        strike(&mut farm, answered, plan)
    );
    hit?;
    crowd.all_ended().await;
    let took = began.elapsed();
    let rate = (crowd.answered() - before) as f64 / took.as_secs_f64();
    crowd.read_again().await;
    let mut said = farm.said().await;
    said.extend(crowd.refusals());
    faults.extend(farm.marked.faults());
    let secrets = farm.secrets().chain([plan.load.canary.clone()]).collect();
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

/// Strikes; each blow comes after so many more answers.
async fn strike(
    farm: &mut Farm,
    mut answered: watch::Receiver<usize>,
    plan: &Plan,
) -> io::Result<()> {
    let mut chance = Chance::new(plan.seed);
    for blow in &plan.blows {
        let wanted = *answered.borrow() + plan.between as usize / 2;
        let more = answered.wait_for(|answered| *answered >= wanted);
        // With fewer answers than hoped for it is struck all the same.
        drop(timeout(PATIENCE / 10, more).await);
        // Anywhere in the middle of what the relay is doing.
        sleep(Duration::from_micros(chance.below(20_000))).await;
        match blow {
            Blow::Relay => {
                farm.kill_relay().await;
                farm.stand.start_relay().await;
            }
            Blow::Agent => {
                let which = chance.below(farm.hands.len() as u64) as usize;
                farm.kill_agent(which).await;
                farm.start_agent(which).await;
            }
            Blow::Power => farm.cut_power().await?,
            Blow::Drain => {
                farm.drain_relay().await;
                farm.stand.start_relay().await;
            }
            Blow::Cut => {
                let line = &farm.hands[chance.below(farm.hands.len() as u64) as usize].line;
                line.cut();
                sleep(SHORTLY).await;
                line.mend();
            }
            Blow::Held => {
                let line = &farm.hands[chance.below(farm.hands.len() as u64) as usize].line;
                line.hold();
                sleep(3 * SHORTLY).await;
                line.mend();
            }
        }
    }
    Ok(())
}

/// A job that kills its agent is given up after so many attempts, and holds up nobody meanwhile.
/// Answers how often it killed.
async fn poison(farm: &mut Farm, crowd: &mut Crowd, plan: &Plan) -> usize {
    let question = Question {
        name: format!("{}-poison", plan.load.canary),
        words: 2 * HALF as u64,
        pause: Duration::ZERO,
        manner: Manner::Poison,
        only: Some(farm.name(0).to_owned()),
    };
    let name = question.name.clone();
    crowd.ask_this(question).await;
    let marked = farm.marked.clone();
    let killing = async {
        for times in 1..=ATTEMPTS_MAX {
            let begun = marked.until_begun(&name, u64::from(times));
            within("the job that kills is tried again", begun).await;
            farm.kill_agent(0).await;
            farm.start_agent(0).await;
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

/// Half of an answer that somebody oversleeps.
const HALF: usize = 4;

/// Two workers fall silent in the middle of an answer until their leases have run out and another
/// has begun anew: an agent that is stopped and goes on where it was, and one that knows of
/// nothing and says the rest of what it began. Answers how many leases were overslept.
async fn oversleep(farm: &mut Farm, crowd: &mut Crowd, plan: &Plan) -> u64 {
    let question = |name: &str, manner| Question {
        name: format!("{}-{name}", plan.load.canary),
        words: 2 * HALF as u64,
        pause: Duration::ZERO,
        manner,
        only: None,
    };
    let (slept, late) = (
        question("overslept", Manner::Stall),
        question("late", Manner::Halt),
    );
    crowd.ask_this(late.clone()).await;
    let worker = LateWorker::begin(&farm.stand, late.clone()).await;
    crowd.ask_this(slept.clone()).await;
    farm.start_agent(0).await;
    let begun = crowd.until(|notes| half(notes, &slept.name, false));
    within("the first agent has half an answer", begun).await;
    let sleeper = farm.hands[0].agent.take();
    if let Some(agent) = &sleeper {
        agent.freeze();
    }
    for n in 1..farm.hands.len() {
        farm.start_agent(n).await;
    }
    farm.marked.go_on();
    crowd.ask(plan.between).await;
    let again = |notes: &[Note]| half(notes, &slept.name, true) && half(notes, &late.name, true);
    within("another agent has half of both answers", crowd.until(again)).await;
    let left = farm.ollama.left();
    if let Some(agent) = &sleeper {
        agent.thaw();
    }
    farm.hands[0].agent = sleeper;
    // One that is let say more is not stopped here: its words are found where they should not be.
    worker.finish(&farm.stand).await;
    drop(timeout(NOTICED_WITHIN, farm.ollama.until_left(left + 1)).await);
    farm.marked.finish();
    farm.marked.runs_of(&slept.name) - 1 + farm.marked.runs_of(&late.name)
}

/// Whether half of this answer was seen, of its second beginning if that is asked for.
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
