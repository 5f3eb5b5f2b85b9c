//! The question to the owner whether a program may send a command, and its answers.

use proto::status::pair::{Program, Waiting};
use status::Consent;

use crate::{Language, TrayAct, language::Words};

/// Maximum length of a line that is shown, in characters.
const LINE_MAX: usize = 120;

/// A pending approval, in the owner's language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The number of the approval.
    pub approval: u64,
    /// The program's own name. A program can use any name; `from` is what the system knows.
    pub who: String,
    /// The command that the program wants to send.
    pub what: String,
    /// The program's file and process id, or the origin of a web page; empty if unknown.
    pub from: String,
    /// The possible answers, with their labels.
    pub answers: [(TrayAct, &'static str); 3],
}

/// The pending approvals, the oldest first.
#[must_use]
pub fn questions(waiting: &[Waiting], language: Language) -> Vec<Question> {
    let words = language.words();
    let questions = waiting.iter().filter_map(|one| question(one, words));
    questions.collect()
}

fn question(waiting: &Waiting, words: &'static Words) -> Option<Question> {
    let approval = waiting.id.parse().ok()?;
    let approve = |consent| TrayAct::Approve { approval, consent };
    let title = waiting.who.title();
    let who = if title.is_empty() {
        words.some_program
    } else {
        title
    };
    Some(Question {
        approval,
        who: clip(who),
        what: clip(&format!("{} ({})", words.asks, waiting.command)),
        from: clip(&from(&waiting.who)),
        answers: [
            (approve(Consent::Once), words.allow_once),
            (approve(Consent::Always), words.allow_always),
            (TrayAct::Deny { approval }, words.deny),
        ],
    })
}

fn from(who: &Program) -> String {
    let file = who.origin.as_deref().or(who.file.as_deref());
    let process = who.process.map(|process| process.to_string());
    let parts = file.map(ToOwned::to_owned).into_iter().chain(process);
    parts.collect::<Vec<_>>().join(" · ")
}

pub(crate) fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(LINE_MAX).collect();
    if clipped.len() < text.len() {
        clipped.pop();
        clipped.push('…');
    }
    clipped
}

#[cfg(test)]
mod tests {
    use proto::Timestamp;

    use super::*;

    #[test]
    fn the_owner_reads_who_asks_what_from_where_and_can_say_three_things() {
        let waiting = |id: &str, who| Waiting {
            id: id.into(),
            who,
            command: "stop_tts".into(),
            until: Timestamp(0),
        };
        let dock = Program {
            name: "dock".into(),
            file: Some("/usr/bin/dock".into()),
            process: Some(7),
            origin: None,
        };
        let unknown = waiting("3", Program::default());
        let all = [
            waiting("2", dock),
            unknown,
            waiting("x", Program::default()),
        ];
        let asked = questions(&all, Language::English);
        let said: Vec<_> = asked
            .iter()
            .map(|one| (one.approval, &*one.who, &*one.what, &*one.from))
            .collect();
        let what = "wants to send a command (stop_tts)";
        let known = (2, "dock", what, "/usr/bin/dock · 7");
        assert_eq!(said, [known, (3, "A program", what, "")]);
        let answers = asked[0].answers.map(|(act, _)| act);
        let approval = 2;
        let allow = |consent| TrayAct::Approve { approval, consent };
        assert_eq!(
            answers,
            [
                allow(Consent::Once),
                allow(Consent::Always),
                TrayAct::Deny { approval }
            ]
        );
        for language in Language::ALL {
            let asked = &questions(&all, language)[0];
            assert!(asked.answers.iter().all(|(_, label)| !label.is_empty()));
        }
    }
}
