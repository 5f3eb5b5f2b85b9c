//! Judges a run by the requesters' own logs only; neither the relay's store nor its log is used.
//!
//! Every answer consists of marks ([`Mark`]), so that each word names its question and the engine
//! run that wrote it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

/// One word of an answer, `MARK/RUN/N/OF`; a whole answer has `N` = 1 to `OF` of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The question that it answers.
    pub question: String,
    /// The engine run that wrote it; each run has its own number.
    pub run: u64,
    /// The position of the word in the answer, from 1.
    pub n: u64,
    /// The number of words in the answer.
    pub of: u64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            question,
            run,
            n,
            of,
        } = self;
        write!(f, "{question}/{run}/{n}/{of}")
    }
}

impl Mark {
    fn parse(word: &str) -> Option<Self> {
        let mut parts = word.split('/');
        let mark = Self {
            question: parts.next()?.to_owned(),
            run: parts.next()?.parse().ok()?,
            n: parts.next()?.parse().ok()?,
            of: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(mark)
    }
}

/// What a requester may expect for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// An answer, if the question was acknowledged.
    Answer,
    /// Any end: its engine fails on purpose.
    End,
}

/// One observation of a requester.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It sends the question.
    Asked(Promise),
    /// The relay acknowledged the question with this id.
    Acknowledged(String),
    /// A part of the answer, in this reading.
    Piece(u32, String),
    /// All earlier parts of this reading are void.
    Restarted(u32),
    /// The answer ended, in this reading.
    Ended(u32, Ending),
}

/// The end of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Completed.
    Completed,
    /// Failed with this code.
    Failed(String),
    /// Cancelled by the requester, or by the relay for it.
    Cancelled,
}

impl Ending {
    /// Whether two readers can have seen the same end; some APIs do not send the code.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed(a), Self::Failed(b)) => a == b || a.is_empty() || b.is_empty(),
            (a, b) => a == b,
        }
    }
}

/// One line of a requester's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The question; the marks of its answer have the same name.
    pub question: String,
    /// The observation.
    pub seen: Seen,
}

/// The results of all questions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Number of questions sent.
    pub asked: usize,
    /// Number of questions that the relay acknowledged as jobs.
    pub acknowledged: usize,
    /// Number of questions with a whole answer.
    pub completed: usize,
    /// Number of questions that failed on purpose, or ended with a typed error unacknowledged.
    pub failed: usize,
    /// Number of questions that were refused or whose connection broke before the acknowledgement.
    pub unpromised: usize,
    /// Acknowledged questions without the expected end, or with an incomplete answer.
    pub lost: Vec<String>,
    /// Questions that ended twice, ended in two ways, have two answers, or were accepted as two
    /// jobs.
    pub doubled: Vec<String>,
    /// Questions whose answer contains words of another question or of two runs.
    pub mixed: Vec<String>,
}

impl Verdict {
    /// Whether nothing was lost, doubled or mixed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.mixed.is_empty()
    }

    /// Adds the results of other questions.
    pub fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.acknowledged += other.acknowledged;
        self.completed += other.completed;
        self.failed += other.failed;
        self.unpromised += other.unpromised;
        self.lost.extend(other.lost);
        self.doubled.extend(other.doubled);
        self.mixed.extend(other.mixed);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lost, doubled, mixed) = (self.lost.len(), self.doubled.len(), self.mixed.len());
        write!(
            f,
            "{} asked, {} acknowledged, {} answered, {} failed as told, {} never promised: \
             lost {lost}, doubled {doubled}, mixed {mixed}",
            self.asked, self.acknowledged, self.completed, self.failed, self.unpromised
        )?;
        let findings = [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("mixed", &self.mixed),
        ];
        for (what, found) in findings {
            for finding in found.iter().take(5) {
                write!(f, "\n  {what}: {finding}")?;
            }
        }
        Ok(())
    }
}

/// Judges the logs.
#[must_use]
pub fn judge<'a>(notes: impl IntoIterator<Item = &'a Note>) -> Verdict {
    let mut files = BTreeMap::<&str, File<'_>>::new();
    let mut named = HashMap::<&str, &str>::new();
    let mut verdict = Verdict::default();
    for Note { question, seen } in notes {
        if let Seen::Acknowledged(id) = seen {
            let first = named.entry(id).or_insert(question);
            if *first != question {
                let finding = format!("job {id} was named to {first} and to {question}");
                verdict.mixed.push(finding);
            }
        }
        files.entry(question).or_default().note(seen);
    }
    for (question, file) in &files {
        file.close(question, &mut verdict);
    }
    verdict
}

/// The log lines of the first few questions with a fault.
#[must_use]
pub fn evidence(notes: &[Note], verdict: &Verdict) -> Vec<String> {
    let findings = [&verdict.lost, &verdict.doubled, &verdict.mixed];
    let findings = findings.into_iter().flat_map(|found| found.iter().take(3));
    let questions = findings.filter_map(|finding| finding.split([' ', ',']).next());
    let about = |question| notes.iter().filter(move |note| note.question == question);
    questions
        .flat_map(about)
        .map(|Note { question, seen }| format!("{question}: {seen:?}"))
        .collect()
}

/// The log lines of one question.
#[derive(Debug, Default)]
struct File<'a> {
    promise: Option<Promise>,
    ids: Vec<&'a str>,
    readings: BTreeMap<u32, Reading<'a>>,
}

/// One reading of an answer, from its start.
#[derive(Debug, Default)]
struct Reading<'a> {
    /// The text of each attempt.
    texts: Vec<String>,
    endings: Vec<&'a Ending>,
    goes_on: bool,
}

impl<'a> File<'a> {
    fn note(&mut self, seen: &'a Seen) {
        match seen {
            Seen::Asked(promise) => self.promise = Some(*promise),
            Seen::Acknowledged(id) => {
                if !self.ids.contains(&id.as_str()) {
                    self.ids.push(id);
                }
            }
            Seen::Piece(reading, text) => self.reading(*reading).text().push_str(text),
            Seen::Restarted(reading) => {
                let reading = self.reading(*reading);
                reading.text();
                reading.texts.push(String::new());
            }
            Seen::Ended(reading, ending) => self.reading(*reading).endings.push(ending),
        }
    }

    fn reading(&mut self, n: u32) -> &mut Reading<'a> {
        let reading = self.readings.entry(n).or_default();
        reading.goes_on |= !reading.endings.is_empty();
        reading
    }

    fn close(&self, question: &str, verdict: &mut Verdict) {
        verdict.asked += 1;
        verdict.acknowledged += usize::from(!self.ids.is_empty());
        if self.ids.len() > 1 {
            verdict
                .doubled
                .push(format!("{question} became the jobs {:?}", self.ids));
        }
        for (n, reading) in &self.readings {
            reading.judge(&format!("{question}, reading {n}"), question, verdict);
        }
        let mut answers = self.readings.values().filter_map(|reading| {
            let text = reading.texts.last().map_or("", String::as_str);
            Some((*reading.endings.first()?, text))
        });
        let Some((ending, text)) = answers.next() else {
            if self.ids.is_empty() {
                verdict.unpromised += 1;
            } else {
                verdict
                    .lost
                    .push(format!("{question} was taken and never ended"));
            }
            return;
        };
        // Some APIs do not return the text of an answer that failed.
        let is_told = *ending == Ending::Completed;
        if answers.any(|(other, again)| !other.is_like(ending) || is_told && again != text) {
            verdict
                .doubled
                .push(format!("{question} changed after its end"));
        }
        match (ending, self.promise) {
            (Ending::Completed, _) => verdict.completed += 1,
            (_, Some(Promise::Answer)) if !self.ids.is_empty() => verdict.lost.push(format!(
                "{question} was taken and ended without an answer: {ending:?}"
            )),
            (Ending::Failed(_) | Ending::Cancelled, _) => verdict.failed += 1,
        }
    }
}

impl Reading<'_> {
    fn text(&mut self) -> &mut String {
        if self.texts.is_empty() {
            self.texts.push(String::new());
        }
        let last = self.texts.len() - 1;
        &mut self.texts[last]
    }

    fn judge(&self, name: &str, question: &str, verdict: &mut Verdict) {
        if self.goes_on {
            verdict
                .doubled
                .push(format!("{name} went on after its end"));
        }
        let is_complete = self.endings.first() == Some(&&Ending::Completed);
        let (last, void) = self
            .texts
            .split_last()
            .map_or(("", &[][..]), |(last, void)| (last.as_str(), void));
        for text in void {
            in_order(name, question, &words(text, false).0, verdict);
        }
        let (words, is_whole) = words(last, is_complete);
        in_order(name, question, &words, verdict);
        let reached = words.last().map(|mark| (mark.n, mark.of));
        if is_complete && !(is_whole && reached.is_some_and(|(n, of)| n == of)) {
            let finding = format!("{name} is called complete at {reached:?}");
            verdict.lost.push(finding);
        }
    }
}

/// Whether these are words of one run for one question, from the first and without gaps.
fn in_order(name: &str, question: &str, words: &[Mark], verdict: &mut Verdict) {
    let Some(run) = words.first().map(|mark| mark.run) else {
        return;
    };
    for (mark, n) in words.iter().zip(1..) {
        if mark.question != question || mark.run != run {
            let finding = format!("{name}: {mark} as word {n} of run {run}");
            verdict.mixed.push(finding);
        } else if mark.n < n {
            verdict.doubled.push(format!("{name}: {mark} came again"));
        } else if mark.n > n {
            let finding = format!("{name}: {mark} came as word {n}");
            verdict.lost.push(finding);
        } else {
            continue;
        }
        return;
    }
}

/// The words of a text, and whether it contains nothing else. The last word of an incomplete text
/// may be cut.
fn words(text: &str, is_complete: bool) -> (Vec<Mark>, bool) {
    let cut = if is_complete || text.ends_with(' ') {
        text
    } else {
        text.rsplit_once(' ').map_or("", |(before, _)| before)
    };
    let marks: Vec<Option<Mark>> = cut.split_whitespace().map(Mark::parse).collect();
    let is_whole = marks.iter().all(Option::is_some);
    (marks.into_iter().flatten().collect(), is_whole)
}

#[cfg(test)]
mod tests;
