//! A scripted engine whose words name their question and run, for the [`crate::auditor`]. The
//! question's text says how it is answered.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    auditor::{Mark, Promise},
    scripted_ollama::{Answer, Gate, Request, ScriptedOllama, Step},
};

/// The engine's behaviour for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineBehavior {
    /// Answers it.
    Well,
    /// Closes the connection without an answer the first time, then answers.
    DeadOnce,
    /// Refuses with status 500.
    Refuse,
    /// Sends half a line of JSON and ends the response normally.
    HalfJson,
    /// Breaks the connection in the middle.
    Cut,
    /// Sends half and waits forever; the test kills each agent that runs it.
    Poison,
    /// Stops in the middle until [`TaggedEngine::finish`].
    Halt,
    /// Stops in the middle until released. The first run then sends all but its last word; a later
    /// run sends everything.
    Stall,
}

impl EngineBehavior {
    /// All behaviours.
    pub const ALL: [Self; 8] = [
        Self::Well,
        Self::DeadOnce,
        Self::Refuse,
        Self::HalfJson,
        Self::Cut,
        Self::Poison,
        Self::Halt,
        Self::Stall,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::DeadOnce => "dead-once",
            Self::Refuse => "refuse",
            Self::HalfJson => "half-json",
            Self::Cut => "cut",
            Self::Poison => "poison",
            Self::Halt => "halt",
            Self::Stall => "stall",
        }
    }

    /// What a requester may expect.
    #[must_use]
    pub const fn promise(self) -> Promise {
        match self {
            Self::Well | Self::DeadOnce | Self::Halt | Self::Stall => Promise::Answer,
            Self::Refuse | Self::HalfJson | Self::Cut | Self::Poison => Promise::End,
        }
    }
}

/// A question; its text is the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The unique name.
    pub name: String,
    /// Number of words of the answer.
    pub words: u64,
    /// Pause between words.
    pub pause: Duration,
    /// The engine's behaviour.
    pub behavior: EngineBehavior,
    /// The only agent that may answer; not part of the text.
    pub only: Option<String>,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pause, behavior) = (self.pause.as_millis(), self.behavior.word());
        write!(f, "{} {} {pause} {behavior}", self.name, self.words)
    }
}

impl FromStr for Question {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHY: &str = "a question is NAME WORDS MILLISECONDS MANNER";
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(WHY);
        let (name, count, pause, behavior) = (word()?, word()?, word()?, word()?);
        let is_said = |known: &EngineBehavior| known.word() == behavior;
        Ok(Self {
            name: name.to_owned(),
            words: count.parse().map_err(|_| WHY)?,
            pause: Duration::from_millis(pause.parse().map_err(|_| WHY)?),
            behavior: EngineBehavior::ALL.into_iter().find(is_said).ok_or(WHY)?,
            only: None,
        })
    }
}

/// The state of the engine.
#[derive(Debug, Clone, Default)]
pub struct TaggedEngine {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    runs: watch::Sender<u64>,
    runs_of: Mutex<HashMap<String, u64>>,
    faults: Mutex<BTreeMap<&'static str, usize>>,
    stalled: Gate,
    second: Gate,
}

impl TaggedEngine {
    /// Makes this engine answer every question with tagged words.
    #[must_use]
    pub fn engine(ollama: &ScriptedOllama) -> Self {
        let tagged_engine = Self::default();
        for path in ["/api/chat", "/api/generate"] {
            let tagged_engine = tagged_engine.clone();
            ollama.settle_with(path, move |request| tagged_engine.answer(request));
        }
        tagged_engine
    }

    /// Number of answers begun.
    #[must_use]
    pub fn runs(&self) -> u64 {
        *self.shared.runs.borrow()
    }

    /// Number of times that a question was begun.
    #[must_use]
    pub fn runs_of(&self, name: &str) -> u64 {
        self.shared.runs_of.lock().get(name).copied().unwrap_or(0)
    }

    /// Waits until a question has been begun this many times.
    pub async fn until_begun(&self, name: &str, times: u64) {
        let mut runs = self.shared.runs.subscribe();
        // `self` holds the sender.
        drop(runs.wait_for(|_| self.runs_of(name) >= times).await);
    }

    /// The numbers of engine faults, by kind.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<&'static str, usize> {
        self.shared.faults.lock().clone()
    }

    /// Lets the first runs of stalled questions continue.
    pub fn go_on(&self) {
        self.shared.stalled.open();
    }

    /// Lets later runs of stalled questions, and all halted ones, finish.
    pub fn finish(&self) {
        self.shared.second.open();
    }

    fn answer(&self, request: &Request) -> Answer {
        let Some((question, is_chat)) = asked(&request.body) else {
            return Answer::json(400, r#"{"error":"not a question"}"#);
        };
        let again = {
            let mut runs_of = self.shared.runs_of.lock();
            let runs = runs_of.entry(question.name.clone()).or_default();
            *runs += 1;
            *runs > 1
        };
        let mut run = 0;
        self.shared.runs.send_modify(|runs| {
            *runs += 1;
            run = *runs;
        });
        let fault = match (question.behavior, again) {
            (EngineBehavior::DeadOnce, false) => Some("engine that hangs up"),
            (EngineBehavior::Refuse, _) => Some("engine that answers 500"),
            (EngineBehavior::HalfJson, _) => Some("half a line of JSON"),
            (EngineBehavior::Cut, _) => Some("engine that breaks off"),
            (EngineBehavior::Stall, false) => Some("engine that falls silent"),
            (
                EngineBehavior::Well
                | EngineBehavior::DeadOnce
                | EngineBehavior::Poison
                | EngineBehavior::Halt
                | EngineBehavior::Stall,
                _,
            ) => None,
        };
        if let Some(fault) = fault {
            *self.shared.faults.lock().entry(fault).or_default() += 1;
        }
        let line = |n| {
            let mark = Mark {
                question: question.name.clone(),
                run,
                n,
                of: question.words,
            };
            Step::Send(line(&format!("{mark} "), is_chat).into())
        };
        let paced = |range: std::ops::RangeInclusive<u64>| {
            range.flat_map(|n| {
                let pause = (!question.pause.is_zero()).then_some(Step::Pause(question.pause));
                pause.into_iter().chain([line(n)])
            })
        };
        let (all, half) = (question.words, question.words / 2);
        let end = [Step::Send(last_line(is_chat).into()), Step::Finish];
        match (question.behavior, again) {
            (EngineBehavior::Refuse, _) => Answer::json(500, r#"{"error":"out of luck"}"#),
            (EngineBehavior::DeadOnce, false) => Answer::default().then(Step::Cut),
            (EngineBehavior::Well, _) | (EngineBehavior::DeadOnce, true) => {
                extend(Answer::begin(), paced(1..=all).chain(end))
            }
            (EngineBehavior::HalfJson, _) => {
                let half_line = Step::Send((r#"{"model":"tiny","mess"#).into());
                let rest = [half_line, Step::Finish];
                extend(Answer::begin(), paced(1..=half).chain(rest))
            }
            (EngineBehavior::Cut, _) => extend(Answer::begin(), paced(1..=half).chain([Step::Cut])),
            (EngineBehavior::Poison, _) => extend(Answer::begin(), paced(1..=half)),
            // The last word is never sent: the run's lease is lost.
            (EngineBehavior::Stall, false) => {
                let wait = [Step::Wait(self.shared.stalled.clone())];
                let steps = paced(1..=half).chain(wait).chain(paced(half + 1..=all - 1));
                extend(Answer::begin(), steps)
            }
            (EngineBehavior::Halt, _) | (EngineBehavior::Stall, true) => {
                let wait = [Step::Wait(self.shared.second.clone())];
                let steps = paced(1..=half)
                    .chain(wait)
                    .chain(paced(half + 1..=all))
                    .chain(end);
                extend(Answer::begin(), steps)
            }
        }
    }
}

fn extend(answer: Answer, steps: impl IntoIterator<Item = Step>) -> Answer {
    steps.into_iter().fold(answer, Answer::then)
}

fn asked(body: &[u8]) -> Option<(Question, bool)> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let (text, is_chat) = match body["prompt"].as_str() {
        Some(prompt) => (prompt, false),
        None => (
            body["messages"].as_array()?.last()?["content"].as_str()?,
            true,
        ),
    };
    Some((text.parse().ok()?, is_chat))
}

const AT: &str = "2026-01-01T00:00:00Z";

/// A line of an answer.
pub(crate) fn line(text: &str, is_chat: bool) -> String {
    let mut line = json!({ "model": "tiny", "created_at": AT });
    if is_chat {
        line["message"] = json!({ "role": "assistant", "content": text });
    } else {
        line["response"] = json!(text);
    }
    line["done"] = json!(false);
    format!("{line}\n")
}

/// The last line of an answer.
pub(crate) fn last_line(is_chat: bool) -> String {
    let mut line: Value = serde_json::from_str(&line("", is_chat)).unwrap_or_default();
    line["done"] = json!(true);
    line["done_reason"] = json!("stop");
    format!("{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_its_own_text() {
        for behavior in EngineBehavior::ALL {
            let question = Question {
                name: "q7".into(),
                words: 4,
                pause: Duration::from_millis(20),
                behavior,
                only: None,
            };
            assert_eq!(question.to_string().parse(), Ok(question));
        }
        assert!("hello".parse::<Question>().is_err());
    }
}
