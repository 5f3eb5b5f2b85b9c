//! Kills of relay and agents and power cuts under load, and one agent that sleeps past its lease
//! and wakes up: what the requesters wrote down is judged by the [`crate::auditor`].

use std::{fmt, io, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    auditor::{Note, Seen, Verdict, judge},
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
}

/// How hard it is tried.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One after the other.
    pub blows: Vec<Blow>,
    /// Whether an agent oversleeps its lease before that.
    pub oversleep: bool,
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
    /// Every blow, in order.
    pub blows: Vec<Blow>,
    /// Leases that ran out while their holder slept.
    pub overslept: u64,
    /// How long it took from the first blow until everything had ended.
    pub took: Duration,
    /// Answers a second in that time.
    pub rate: f64,
    /// What was logged, and what refusals said.
    pub said: Vec<String>,
}

impl Report {
    /// How often this was hit.
    #[must_use]
    pub fn count(&self, blow: Blow) -> usize {
        self.blows.iter().filter(|&&hit| hit == blow).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills of the relay, {} of agents, {} power cuts, {} leases overslept, in {:.0} s \
             at {:.0} answers a second: {}",
            self.count(Blow::Relay),
            self.count(Blow::Agent),
            self.count(Blow::Power),
            self.overslept,
            self.took.as_secs_f64(),
            self.rate,
            self.verdict
        )
    }
}

/// How long what was acknowledged is waited for.
const ENDED_WITHIN: Duration = Duration::from_secs(150);
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
    let mut overslept = 0;
    if plan.oversleep {
        overslept = oversleep(&mut farm, &mut crowd, plan).await;
    } else {
        for n in 0..plan.agents {
            farm.start_agent(n).await;
        }
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
    let mut said = farm.said();
    said.extend(crowd.refusals());
    Ok(Report {
        verdict: judge(&crowd.notes()),
        blows: plan.blows.clone(),
        overslept,
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
        }
    }
    Ok(())
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
