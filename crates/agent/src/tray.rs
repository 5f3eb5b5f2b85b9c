//! Computes the tray from a status. Nothing here waits or acts.

use proto::status::{Command, Phase, Status, pair::Waiting};

use crate::{
    Language, Question, Tray, TrayAct, TrayIcon, TrayItem,
    question::{clip, questions},
};

/// Maximum number of jobs in the menu.
const JOBS_MAX: usize = 4;

/// The tray for a status. It contains nothing that changes with every token.
pub(crate) fn tray(
    status: &Status,
    waiting: &[Waiting],
    language: Language,
    autostart: bool,
) -> Tray {
    let words = language.words();
    let action = |act, label: &str| TrayItem::Action {
        act,
        label: label.to_owned(),
    };
    let command = |command, label: &str| action(TrayAct::Command(command), label);
    let check = |act, label: &str, checked| TrayItem::Check {
        act,
        label: label.to_owned(),
        checked,
    };
    let mut items = vec![TrayItem::Line(status.text.clone())];
    let problem = match status.status {
        Phase::RelayOffline | Phase::Error => &status.relay.problem,
        Phase::EngineOffline => &status.engine.problem,
        Phase::Starting | Phase::Ready | Phase::Working | Phase::Listening | Phase::Speaking => "",
        Phase::Paused | Phase::Connecting | Phase::Stopping => "",
    };
    if !problem.is_empty() {
        items.push(TrayItem::Line(clip(problem)));
    }
    let lines = status
        .jobs
        .iter()
        .take(JOBS_MAX)
        .map(|job| clip(&format!("{} · {}", job.who, job.model)));
    items.extend(lines.map(TrayItem::Line));
    items.push(TrayItem::Separator);
    let asked = questions(waiting, language);
    items.extend(asked.iter().flat_map(items_of));
    let monitoring = if status.monitoring {
        words.pause
    } else {
        words.resume
    };
    items.push(command(Command::ToggleMonitoring, monitoring));
    let overlay = TrayAct::Command(Command::ToggleOverlay);
    items.push(check(overlay, words.show_overlay, status.overlay_visible));
    if status.is_speaking {
        items.push(command(Command::StopTts, words.stop_speaking));
    }
    items.push(check(
        TrayAct::ToggleAutostart,
        words.start_at_login,
        autostart,
    ));
    items.push(TrayItem::Separator);
    items.push(action(TrayAct::OpenWindow, words.open));
    items.push(command(Command::Quit, words.quit));
    let tooltip = asked.first().map_or_else(|| status.text.clone(), line);
    Tray {
        icon: icon(status.status),
        phase: status.status,
        tooltip: clip(&format!("Hearth: {tooltip}")),
        items,
    }
}

/// The menu items of a pending approval: its text and the possible answers.
fn items_of(question: &Question) -> Vec<TrayItem> {
    let answers = question
        .answers
        .iter()
        .map(|(act, label)| TrayItem::Action {
            act: *act,
            label: (*label).to_owned(),
        });
    std::iter::once(TrayItem::Line(line(question)))
        .chain(answers)
        .chain([TrayItem::Separator])
        .collect()
}

fn line(question: &Question) -> String {
    clip(&format!("{}: {}", question.who, question.what))
}

fn icon(phase: Phase) -> TrayIcon {
    match phase {
        Phase::Ready => TrayIcon::Ready,
        Phase::Working | Phase::Listening | Phase::Speaking => TrayIcon::Working,
        Phase::Paused => TrayIcon::Paused,
        Phase::Starting | Phase::Connecting | Phase::Stopping => TrayIcon::Connecting,
        Phase::RelayOffline | Phase::EngineOffline | Phase::Error => TrayIcon::Offline,
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        JobId, ModelName, Op, Timestamp,
        status::{LiveJob, pair::Program},
    };
    use status::Consent;

    use super::*;

    #[test]
    fn every_phase_has_its_picture_and_its_words_in_every_language() {
        for language in Language::ALL {
            for (phase, picture) in [
                (Phase::Starting, TrayIcon::Connecting),
                (Phase::Ready, TrayIcon::Ready),
                (Phase::Working, TrayIcon::Working),
                (Phase::Listening, TrayIcon::Working),
                (Phase::Speaking, TrayIcon::Working),
                (Phase::Paused, TrayIcon::Paused),
                (Phase::Connecting, TrayIcon::Connecting),
                (Phase::RelayOffline, TrayIcon::Offline),
                (Phase::EngineOffline, TrayIcon::Offline),
                (Phase::Error, TrayIcon::Offline),
                (Phase::Stopping, TrayIcon::Connecting),
            ] {
                let text = language.words().phase(phase).to_owned();
                assert!(!text.is_empty());
                let tray = tray(
                    &Status {
                        status: phase,
                        text,
                        ..Status::default()
                    },
                    &[],
                    language,
                    false,
                );
                assert_eq!(tray.icon, picture, "{phase:?}");
            }
        }
    }

    #[test]
    fn the_menu_says_resume_while_paused_and_ticks_what_is_on() {
        let paused = Status {
            monitoring: false,
            overlay_visible: true,
            ..Status::default()
        };
        let items = tray(&paused, &[], Language::English, true).items;
        let label = |act| {
            items.iter().find_map(|item| match item {
                TrayItem::Action { act: found, label } if *found == act => {
                    Some((label.clone(), None))
                }
                TrayItem::Check {
                    act: found,
                    label,
                    checked,
                } if *found == act => Some((label.clone(), Some(*checked))),
                TrayItem::Action { .. } | TrayItem::Check { .. } => None,
                TrayItem::Line(_) | TrayItem::Separator => None,
            })
        };
        let of = |command| label(TrayAct::Command(command));
        assert_eq!(of(Command::ToggleMonitoring), Some(("Resume".into(), None)));
        assert_eq!(
            of(Command::ToggleOverlay),
            Some(("Show overlay".into(), Some(true)))
        );
        assert_eq!(
            label(TrayAct::ToggleAutostart),
            Some(("Start at login".into(), Some(true)))
        );
        assert_eq!(of(Command::StopTts), None, "nobody speaks");
        assert!(of(Command::Quit).is_some());
        let open = Some(("Open Hearth".into(), None));
        assert_eq!(label(TrayAct::OpenWindow), open, "not at its settings");
    }

    #[test]
    fn a_new_token_does_not_repaint_the_tray_and_a_new_job_does() {
        let job = LiveJob {
            id: JobId([1; 16]),
            who: "laptop".into(),
            model: ModelName::new("m:1b").unwrap(),
            op: Op::Chat,
            started_at: Timestamp(0),
            tokens: 3,
            tokens_per_second: 0.0,
        };
        let one = Status {
            jobs: vec![job],
            ..Status::default()
        };
        let mut more = one.clone();
        more.jobs[0].tokens = 99;
        more.jobs[0].tokens_per_second = 12.0;
        let paint = |status: &Status| tray(status, &[], Language::Polish, false);
        assert_eq!(paint(&one), paint(&more));
        assert!(
            paint(&one)
                .items
                .contains(&TrayItem::Line("laptop · m:1b".into()))
        );
        more.jobs.clear();
        assert_ne!(paint(&one), paint(&more));
    }

    #[test]
    fn a_long_problem_is_cut_at_a_character() {
        let long = "ż".repeat(500);
        assert_eq!(clip(&long).chars().count(), 120);
        assert_eq!(clip("short"), "short");
    }

    #[test]
    fn a_program_that_asks_stands_in_the_menu_with_the_three_answers() {
        let waiting = Waiting {
            id: "7".into(),
            who: Program {
                name: "my dock".into(),
                ..Program::default()
            },
            command: "quit".into(),
            until: Timestamp(0),
        };
        for language in Language::ALL {
            let waiting = std::slice::from_ref(&waiting);
            let tray = tray(&Status::default(), waiting, language, false);
            assert!(tray.tooltip.contains("my dock"), "{}", tray.tooltip);
            let is_line = |item: &&TrayItem| matches!(item, TrayItem::Line(line) if line.contains("my dock") && line.contains("quit"));
            assert!(tray.items.iter().any(|item| is_line(&item)));
            for act in [
                TrayAct::Approve {
                    approval: 7,
                    consent: Consent::Once,
                },
                TrayAct::Approve {
                    approval: 7,
                    consent: Consent::Always,
                },
                TrayAct::Deny { approval: 7 },
            ] {
                let is_it = |item: &TrayItem| matches!(item, TrayItem::Action { act: it, label } if *it == act && !label.is_empty());
                assert!(tray.items.iter().any(is_it), "{act:?}");
            }
        }
    }
}
