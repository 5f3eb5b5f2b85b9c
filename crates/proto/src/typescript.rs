//! Generates the TypeScript types and limits of the pages: `UPDATE=1` writes them, a test compares
//! them.

use std::{fs, path::Path};

use ts_rs::{Config, TS};

use crate::{
    ErrorCode, ErrorDetail, JobId, JobState, JobView, Op, WebhookState, WebhookView,
    admin::{
        EngineView, KeyView, MinuteView, ModelView, NewKey, Overview, QueueView, RunningJob,
        WorkerCarrier, WorkerView,
    },
    limits,
    status::{
        CarrierKind, ClientMessage, Command, CommandArgs, Hop, HopState, LiveJob, Phase, Publisher,
        ServerMessage, Status,
        pair::{Allowed, Pairs, Program, Waiting},
        v1::{Cause, Field, HubMessage, PeerMessage, Published, Right, Topic},
    },
};

fn written() -> String {
    let config = Config::new().with_large_int("number");
    let mut text =
        "// Written from crates/proto: UPDATE=1 cargo test -p hearth-proto typescript\n".to_owned();
    let mut write = |docs: Option<String>, decl: String| {
        let docs = docs.unwrap_or_default();
        text += &format!("\n{docs}export {decl}\n");
    };
    macro_rules! write {
        ($($type:ty),*) => { $(write(<$type as TS>::docs(), <$type as TS>::decl(&config));)* };
    }
    write!(
        Phase,
        HopState,
        Hop,
        CarrierKind,
        Op,
        LiveJob,
        Publisher,
        Status,
        Program,
        Waiting,
        Allowed,
        Pairs,
        ErrorCode,
        CommandArgs,
        ServerMessage,
        ClientMessage,
        Right,
        Cause,
        Field,
        Published,
        HubMessage,
        PeerMessage,
        ErrorDetail,
        JobState,
        WebhookState,
        WebhookView,
        JobView,
        QueueView,
        WorkerCarrier,
        EngineView,
        ModelView,
        WorkerView,
        RunningJob,
        MinuteView,
        Overview,
        KeyView,
        NewKey
    );
    let mut words = |name: &str, docs: &str, words: Vec<&str>| {
        let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
        let words = words.join(" | ");
        text += &format!("\n/**\n * {docs}\n */\nexport type {name} = {words};\n");
    };
    let commands = COMMANDS.iter().map(|command| command.as_str());
    words(
        "Command",
        "A command to the agent; `ping`, which is not among them, is answered by the hub.",
        commands.collect(),
    );
    let topics = Topic::ALL.iter().map(|topic| topic.as_str());
    words("Topic", "A subscription.", topics.collect());
    let mut number = |name: &str, docs: &str, value: usize| {
        text += &format!("\n/**\n * {docs}\n */\nexport const {name} = {value};\n");
    };
    number(
        "LISTED_MAX",
        "Maximum number of jobs on one page of a list.",
        limits::LISTED_MAX,
    );
    number(
        "DEAD_COUNTED_MAX",
        "Number up to which an overview counts dead jobs.",
        limits::DEAD_COUNTED_MAX,
    );
    text
}

const COMMANDS: [Command; 10] = [
    Command::ToggleMonitoring,
    Command::SetMonitoring(true),
    Command::StopTts,
    Command::SetVolume(30),
    Command::ShowOverlay,
    Command::HideOverlay,
    Command::ToggleOverlay,
    Command::CancelJob(JobId([0; 16])),
    Command::OpenSettings,
    Command::Quit,
];

/// A new variant of the enum does not compile here until it is added to the list above.
#[test]
fn every_command_has_its_word_in_the_pages_types() {
    for command in COMMANDS {
        let place = match command {
            Command::ToggleMonitoring => 0,
            Command::SetMonitoring(_) => 1,
            Command::StopTts => 2,
            Command::SetVolume(_) => 3,
            Command::ShowOverlay => 4,
            Command::HideOverlay => 5,
            Command::ToggleOverlay => 6,
            Command::CancelJob(_) => 7,
            Command::OpenSettings => 8,
            Command::Quit => 9,
        };
        assert_eq!(COMMANDS[place], command);
        assert_eq!(
            Command::parse(command.as_str(), &command.args()),
            Ok(command)
        );
    }
}

#[test]
fn the_pages_types_are_those_of_the_wire() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/src/lib/wire.ts");
    let written = written();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &written).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    assert!(
        kept == written,
        "run UPDATE=1 cargo test -p hearth-proto typescript"
    );
}
