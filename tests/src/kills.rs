//! Kills of relay and agents under load, and one agent that sleeps past its lease and wakes up:
//! what the requesters wrote down is judged by the [`crate::auditor`].

use std::{fmt, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    auditor::{Seen, Verdict, judge},
    crowd::{Crowd, Load},
    farm::Farm,
    marked::{Manner, Question},
    process::PATIENCE,
};

/// How hard it is tried.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many kills there are.
    pub kills: usize,
    /// How many questions are asked between two of them.
    pub between: u64,
    /// What is asked.
    pub load: Load,
    /// How many agents there are.
    pub agents: usize,
    /// Decides who is killed, and when exactly.
    pub seed: u64,
}

impl Plan {
    /// Twenty kills; at 300 answers a second there is one every three seconds.
    #[must_use]
    pub fn full(seed: u64) -> Self {
        Self {
            kills: 20,
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

    /// The same, short enough for every day.
    #[must_use]
    pub fn short(seed: u64) -> Self {
        let mut plan = Self::full(seed);
        plan.kills = 6;
        plan.between = 40;
        plan.load.at_once = 100;
        plan
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// What became of the questions.
    pub verdict: Verdict,
    /// How often the relay was killed.
    pub relays: usize,
    /// How often an agent was.
    pub agents: usize,
    /// Leases that ran out while their holder slept.
    pub overslept: u64,
    /// How long it took from the first kill until everything had ended.
    pub took: Duration,
    /// Answers a second in that time.
    pub rate: f64,
    /// What was logged, and what refusals said.
    pub said: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills of the relay, {} of agents, {} leases overslept, in {:.0} s at {:.0} \
             answers a second: {}",
            self.relays,
            self.agents,
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
/// # Panics
/// If a part cannot be started or does not do what the plan needs it to do.
pub async fn run(plan: &Plan) -> Report {
    let mut farm = Farm::new(plan.agents, 16).await;
    let (address, keys) = (farm.stand.address, farm.keys.clone());
    let mut crowd = Crowd::new(address, keys, plan.load.clone(), ENDED_WITHIN);
    let overslept = oversleep(&mut farm, &mut crowd, plan).await;

    let (began, before) = (Instant::now(), crowd.answered());
    let mut chance = Chance(plan.seed);
    let answered = crowd.progress();
    let ((), (relays, agents)) = tokio::join!(
        crowd.ask(plan.between * (plan.kills as u64 + 1)),
        kill(&mut farm, answered, plan, &mut chance)
    );
    crowd.all_ended().await;
    let took = began.elapsed();
    let rate = (crowd.answered() - before) as f64 / took.as_secs_f64();
    crowd.read_again().await;
    let mut said = farm.said();
    said.extend(crowd.refusals());
    Report {
        verdict: judge(&crowd.notes()),
        relays,
        agents,
        overslept,
        took,
        rate,
        said,
    }
}

/// Kills relay and agents, first in turn, then as chance will have it; each kill comes after so
/// many more answers. Answers how often each was killed.
async fn kill(
    farm: &mut Farm,
    mut answered: watch::Receiver<usize>,
    plan: &Plan,
    chance: &mut Chance,
) -> (usize, usize) {
    let (mut relays, mut agents) = (0, 0);
    for n in 0..plan.kills {
        let wanted = *answered.borrow() + plan.between as usize / 2;
        let more = answered.wait_for(|answered| *answered >= wanted);
        // With fewer answers than hoped for it is killed all the same.
        drop(timeout(PATIENCE / 10, more).await);
        // Anywhere in the middle of what the relay is doing.
        sleep(Duration::from_micros(chance.below(20_000))).await;
        let in_turn = n < plan.kills / 2;
        let relay = if in_turn {
            n % 2 == 0
        } else {
            chance.below(2) == 0
        };
        if relay {
            relays += 1;
            farm.kill_relay().await;
            farm.stand.start_relay().await;
        } else {
            agents += 1;
            let which = chance.below(farm.hands.len() as u64) as usize;
            farm.kill_agent(which).await;
            farm.start_agent(which).await;
        }
    }
    (relays, agents)
}

/// The first agent is stopped in the middle of an answer, until its lease has run out and another
/// has begun anew; then it goes on where it was. Answers how many leases it overslept.
async fn oversleep(farm: &mut Farm, crowd: &mut Crowd, plan: &Plan) -> u64 {
    const HALF: usize = 4;
    let name = format!("{}-overslept", plan.load.canary);
    farm.start_agent(0).await;
    crowd
        .ask_this(Question {
            name: name.clone(),
            words: 2 * HALF as u64,
            pause: Duration::ZERO,
            manner: Manner::Stall,
        })
        .await;
    within(
        "the first agent has half an answer",
        crowd.until(|notes| {
            let pieces = notes.iter().filter(|note| note.question == name);
            pieces
                .filter(|note| matches!(note.seen, Seen::Piece(..)))
                .count()
                >= HALF
        }),
    )
    .await;
    let sleeper = farm.hands[0].agent.take();
    if let Some(agent) = &sleeper {
        agent.freeze();
    }
    for n in 1..farm.hands.len() {
        farm.start_agent(n).await;
    }
    farm.marked.go_on();
    crowd.ask(plan.between).await;
    within(
        "another agent has half an answer",
        crowd.until(|notes| {
            let about = notes.iter().filter(|note| note.question == name);
            let again = about.skip_while(|note| !matches!(note.seen, Seen::Restarted(_)));
            again
                .filter(|note| matches!(note.seen, Seen::Piece(..)))
                .count()
                >= HALF
        }),
    )
    .await;
    let left = farm.ollama.left();
    if let Some(agent) = &sleeper {
        agent.thaw();
    }
    farm.hands[0].agent = sleeper;
    // One that does not notice goes on, and its words will be found where they should not be.
    drop(timeout(NOTICED_WITHIN, farm.ollama.until_left(left + 1)).await);
    farm.marked.finish();
    farm.marked.runs_of(&name) - 1
}

async fn within(what: &str, event: impl Future<Output = ()>) {
    assert!(timeout(2 * PATIENCE, event).await.is_ok(), "never: {what}");
}

/// The same numbers for the same seed.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    /// A number from 0, below this one.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
