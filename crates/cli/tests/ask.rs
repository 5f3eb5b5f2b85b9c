//! `hearth ask`, `jobs` and `doctor` against a scripted relay.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::process::ExitStatus;

use serde_json::{Value, json};
use tests::{
    process::{Finished, Home, Process, finish},
    scripted_ollama::{Answer, Gate, ScriptedOllama, Step},
};
use tokio::process::Command;

const JOB: &str = "00112233445566778899aabbccddeeff";
const END: &str = r#"{"state":"completed"}"#;

fn path(more: &str) -> String {
    format!("/api/jobs/{JOB}{more}")
}

/// A relay that accepts every job and lets it be cancelled.
async fn relay() -> ScriptedOllama {
    let relay = ScriptedOllama::start().await.unwrap();
    let view = json!({"id": JOB, "state": "queued", "account": "default", "op": "chat",
        "model": "tiny", "priority": 5, "attempt": 0, "created_at": 0});
    relay.settle("/api/jobs", Answer::json(202, &view.to_string()));
    relay.settle(&path(""), Answer::json(200, "{}"));
    relay
}

fn event(id: &str, name: &str, data: &str) -> String {
    format!("id: {id}\nevent: {name}\ndata: {data}\n")
}

fn line(id: &str, text: &str) -> String {
    event(
        id,
        "line",
        &json!({"message": {"content": text}}).to_string(),
    )
}

fn events(all: &[String]) -> Answer {
    Answer::begin().send_lines(all.iter().map(String::as_str))
}

fn hearth(home: &Home, relay: &ScriptedOllama, args: &[&str]) -> Command {
    let mut command = home.command(env!("CARGO_BIN_EXE_hearth"));
    command.args(args);
    command.env("HEARTH_RELAY", relay.url());
    command
}

async fn asked(relay: &ScriptedOllama, args: &[&str]) -> Finished {
    let home = Home::new();
    let args = [&["ask", "What?"], args].concat();
    finish(hearth(&home, relay, &args)).await
}

fn withdrawals(relay: &ScriptedOllama) -> usize {
    let requests = relay.requests_for(&path(""));
    let deletions = requests.iter().filter(|request| request.method == "DELETE");
    deletions.count()
}

#[tokio::test]
async fn a_program_is_given_one_answer_though_an_agent_was_lost_in_the_middle() {
    let relay = relay().await;
    let told = events(&[
        line("1-1", "The salty air "),
        line("1-2", "filled"),
        event("2-0", "restarted", r#"{"attempt":2}"#),
        line("2-1", "The sea"),
        event("2-2", "end", END),
    ]);
    relay.settle(&path("/events"), told.then(Step::Finish));
    let done = asked(&relay, &[]).await;
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(done.stdout, "The sea\n");
    assert_eq!(withdrawals(&relay), 0);
}

#[tokio::test]
async fn a_question_is_as_urgent_as_it_is_said_to_be() {
    let relay = relay().await;
    let told = events(&[line("1-1", "The sea"), event("1-2", "end", END)]);
    relay.settle(&path("/events"), told.then(Step::Finish));
    for args in [&[][..], &["--priority", "2"]] {
        let done = asked(&relay, args).await;
        assert!(done.status.success(), "{}", done.stderr);
    }
    let submitted = relay.requests_for("/api/jobs").into_iter();
    let submitted = submitted.map(|request| {
        let job: Value = serde_json::from_slice(&request.body).unwrap();
        job["priority"].clone()
    });
    assert_eq!(submitted.collect::<Vec<_>>(), [json!(null), json!(2)]);
    for wrong in ["0", "11", "high"] {
        let done = asked(&relay, &["--priority", wrong]).await;
        assert_eq!(done.status.code(), Some(2), "{}", done.stderr);
    }
}

#[tokio::test]
async fn a_program_is_given_nothing_of_an_answer_that_failed() {
    let relay = relay().await;
    let failed = json!({"state": "failed", "error": {"code": "engine_failed", "message": "out"}});
    let told = events(&[
        line("1-1", "half"),
        event("1-2", "end", &failed.to_string()),
    ]);
    relay.settle(&path("/events"), told.then(Step::Finish));
    let done = asked(&relay, &[]).await;
    assert_eq!((done.status.code(), done.stdout.as_str()), (Some(1), ""));
    assert!(done.stderr.contains("engine_failed"), "{}", done.stderr);
    assert_eq!(withdrawals(&relay), 0, "it is over");
}

#[tokio::test]
async fn a_person_sees_it_as_it_is_written_and_is_told_that_it_begins_anew() {
    let (relay, home, gate) = (relay().await, Home::new(), Gate::default());
    let told = events(&[
        line("1-1", "The salty air"),
        event("2-0", "restarted", r#"{"attempt":2}"#),
    ]);
    let rest = [line("2-1", "The sea"), event("2-2", "end", END)];
    let rest = Answer::after(&gate).send_lines(rest.iter().map(String::as_str));
    let told = told.then_all(rest).then(Step::Finish);
    relay.settle(&path("/events"), told);
    // A separate terminal; standard error is not shown on it.
    let mut terminal = home.command("script");
    let ask = format!("{} ask What? 2>/dev/null", env!("CARGO_BIN_EXE_hearth"));
    terminal.args(["-qec", &ask, "/dev/null"]);
    terminal.env("HEARTH_RELAY", relay.url());
    let mut terminal = Process::start("script", terminal);
    terminal
        .says("(the agent was lost; another one starts")
        .await;
    assert!(terminal.log().contains("The salty air"));
    gate.open();
    terminal.says("The sea").await;
    assert!(terminal.wait().await.success(), "{}", terminal.log());
}

#[tokio::test]
async fn a_stream_that_broke_goes_on_where_it_was() {
    let relay = relay().await;
    let first = events(&[line("1-1", "one ")]);
    relay.script(&path("/events"), first.then(Step::Cut));
    let second = events(&[line("1-2", "two"), event("1-3", "end", END)]);
    relay.script(&path("/events"), second.then(Step::Finish));
    let done = asked(&relay, &[]).await;
    assert_eq!(done.stdout, "one two\n", "{}", done.stderr);
    let readings = relay.requests_for(&path("/events"));
    assert_eq!(readings.len(), 2);
    assert_eq!(readings[1].headers["last-event-id"], "1-1");
}

#[tokio::test]
async fn whoever_gives_up_withdraws_the_job() {
    let relay = relay().await;
    let endless = events(&[line("1-1", "half")]).then(Step::Wait(Gate::default()));
    relay.settle(&path("/events"), endless);
    let done = asked(&relay, &["--timeout", "1"]).await;
    let said = &done.stderr;
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("within 1 s; the job was cancelled"), "{said}");
    assert_eq!(withdrawals(&relay), 1);

    let home = Home::new();
    let mut asking = Process::start("ask", hearth(&home, &relay, &["ask", "What?"]));
    relay.until_asked(&path("/events"), 2).await;
    asking.ask_to_end();
    let ended: ExitStatus = asking.wait().await;
    let said = asking.log();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(
        said.contains("interrupted; the job was cancelled"),
        "{said}"
    );
    assert_eq!(withdrawals(&relay), 2);

    // A key with the scope `enqueue` but not `read`.
    let refusal = json!({"error": {"code": "forbidden", "message": "the key lacks `read`"}});
    relay.script(&path("/events"), Answer::json(403, &refusal.to_string()));
    let said = asked(&relay, &[]).await.stderr;
    assert!(said.contains("lacks `read`"), "{said}");
    assert!(said.contains("the job was cancelled"), "{said}");
    assert_eq!(withdrawals(&relay), 3);
}

#[tokio::test]
async fn a_job_that_the_relay_was_slow_to_take_is_withdrawn_too() {
    let submissions = |relay: &ScriptedOllama| {
        let requests = relay.requests_for("/api/jobs");
        let names = requests
            .iter()
            .map(|r| r.headers["idempotency-key"].clone());
        names.collect::<Vec<_>>()
    };
    let never = || Answer::after(&Gate::default());
    let slow = relay().await;
    slow.script("/api/jobs", never());
    let said = asked(&slow, &["--timeout", "1"]).await.stderr;
    assert!(said.contains("within 1 s; the job was cancelled"), "{said}");
    assert_eq!(withdrawals(&slow), 1);
    let names = submissions(&slow);
    assert_eq!(names.len(), 2);
    assert_eq!(names[0], names[1], "it asks for the same job");

    slow.script("/api/jobs", never());
    let home = Home::new();
    let mut asking = Process::start("ask", hearth(&home, &slow, &["ask", "What?"]));
    slow.until_asked("/api/jobs", 3).await;
    asking.ask_to_end();
    assert_eq!(asking.wait().await.code(), Some(1));
    let said = asking.log();
    assert!(
        said.contains("interrupted; the job was cancelled"),
        "{said}"
    );
    assert_eq!(withdrawals(&slow), 2);
    assert_ne!(submissions(&slow)[2], names[0], "another job");

    // A proxy that timed out does not know whether the relay has the job; a relay that refuses
    // does.
    let unknown = json!({"error": {"code": "outcome_unknown", "message": "gave up"}});
    for (status, body, why, sent) in [
        (504, "gave up", "HTTP 504", 6),
        (520, "gave up", "HTTP 520", 8),
        (504, &*unknown.to_string(), "outcome_unknown", 10),
    ] {
        slow.script("/api/jobs", Answer::json(status, body));
        let said = asked(&slow, &[]).await.stderr;
        assert!(said.contains(why), "{said}");
        assert!(said.contains("the job was cancelled"), "{said}");
        assert_eq!(submissions(&slow).len(), sent);
    }
    assert_eq!(withdrawals(&slow), 5);
    let full = json!({"error": {"code": "queue_full", "message": "no room"}});
    slow.script("/api/jobs", Answer::json(503, &full.to_string()));
    let said = asked(&slow, &[]).await.stderr;
    assert!(
        said.contains("no room") && !said.contains("was cancelled"),
        "{said}"
    );
    assert_eq!((submissions(&slow).len(), withdrawals(&slow)), (11, 5));

    // A second signal does not wait for a relay that does not respond.
    slow.settle("/api/jobs", never());
    let mut asking = Process::start("ask", hearth(&home, &slow, &["ask", "What?"]));
    slow.until_asked("/api/jobs", 12).await;
    asking.ask_to_end();
    slow.until_asked("/api/jobs", 13).await;
    asking.ask_to_end();
    assert_eq!(asking.wait().await.code(), Some(1));
    let said = asking.log();
    assert!(
        said.contains("which may still run: stopped at once"),
        "{said}"
    );
}

#[tokio::test]
async fn a_closed_terminal_withdraws_the_job() {
    let relay = relay().await;
    let endless = events(&[line("1-1", "half")]).then(Step::Wait(Gate::default()));
    relay.settle(&path("/events"), endless);
    let home = Home::new();
    let mut asking = Process::start("ask", hearth(&home, &relay, &["ask", "What?"]));
    relay.until_asked(&path("/events"), 1).await;
    asking.hang_up();
    assert_eq!(asking.wait().await.code(), Some(1));
    assert_eq!(withdrawals(&relay), 1);
}

/// Escape sequences that would set the clipboard and reverse the text direction.
const STEERING: &str = "\u{1b}]52;c;aGk=\u{7}\u{202e}";

#[tokio::test]
async fn nothing_that_others_wrote_steers_the_terminal() {
    let relay = relay().await;
    let is_clean = |said: &str| !said.contains(['\u{1b}', '\u{7}', '\u{202e}']);
    relay.settle("/healthz", Answer::json(200, r#"{"status":"ok"}"#));
    let models = json!({"models": [{"name": format!("tiny{STEERING}:latest")}]});
    relay.settle("/api/tags", Answer::json(200, &models.to_string()));
    let home = Home::new();
    let done = finish(hearth(&home, &relay, &["doctor"])).await;
    assert!(done.stdout.contains("tiny]52"), "{}", done.stdout);
    assert!(is_clean(&done.stdout), "{:?}", done.stdout);

    let message = format!("out{STEERING} of luck");
    let failed = json!({"state": "failed", "error": {"code": "engine_failed", "message": message}});
    let told = events(&[event("1-1", "end", &failed.to_string())]);
    relay.settle(&path("/events"), told.then(Step::Finish));
    let said = asked(&relay, &[]).await.stderr;
    assert!(said.contains(" of luck") && is_clean(&said), "{said:?}");
    let refusal = json!({"error": {"code": "forbidden", "message": message}});
    relay.script(&path("/events"), Answer::json(403, &refusal.to_string()));
    let said = asked(&relay, &[]).await.stderr;
    assert!(said.contains(" of luck") && is_clean(&said), "{said:?}");

    let answer = format!("one{STEERING}\n\ttwo 👩\u{200d}🚀");
    let told = events(&[line("1-1", &answer), event("1-2", "end", END)]);
    relay.settle(&path("/events"), told.then(Step::Finish));
    let done = asked(&relay, &[]).await;
    assert_eq!(
        done.stdout,
        format!("{answer}\n"),
        "a program gets it as it is"
    );
    let mut terminal = home.command("script");
    let ask = format!("{} ask What? 2>/dev/null", env!("CARGO_BIN_EXE_hearth"));
    terminal.args(["-qec", &ask, "/dev/null"]);
    terminal.env("HEARTH_RELAY", relay.url());
    let mut terminal = Process::start("script", terminal);
    assert!(terminal.wait().await.success(), "{}", terminal.log());
    let said = terminal.log();
    assert!(said.contains("\ttwo 👩\u{200d}🚀"), "{said:?}");
    assert!(is_clean(&said), "{said:?}");
}

#[tokio::test]
async fn a_job_that_could_not_be_withdrawn_is_not_called_withdrawn() {
    let relay = relay().await;
    relay.settle(
        &path("/events"),
        events(&[]).then(Step::Wait(Gate::default())),
    );
    let refusal = json!({"error": {"code": "disk_full", "message": "no room"}});
    relay.settle(&path(""), Answer::json(503, &refusal.to_string()));
    let said = asked(&relay, &["--timeout", "1"]).await.stderr;
    assert!(said.contains("could not be cancelled"), "{said}");
    assert!(said.contains(JOB) && said.contains("no room"), "{said}");
}

#[tokio::test]
async fn one_job_that_cannot_be_cancelled_spares_no_other() {
    let relay = relay().await;
    let other = JOB.replace("00", "ff");
    let refusal = json!({"error": {"code": "job_ended", "message": "it ended"}});
    relay.settle(&path(""), Answer::json(409, &refusal.to_string()));
    relay.settle(&format!("/api/jobs/{other}"), Answer::json(200, "{}"));
    let home = Home::new();
    let done = finish(hearth(&home, &relay, &["jobs", "cancel", JOB, &other])).await;
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(done.stdout, format!("cancelled {other}\n"));
    let said = &done.stderr;
    assert!(said.contains(JOB) && said.contains("it ended"), "{said}");
    assert!(said.contains("1 of 2 jobs were not cancelled"), "{said}");
}

#[tokio::test]
async fn a_key_file_on_the_command_line_wins_over_a_key_in_the_environment() {
    let relay = relay().await;
    let told = events(&[line("1-1", "Yes"), event("1-2", "end", END)]);
    relay.settle(&path("/events"), told.then(Step::Finish));
    let home = Home::new();
    let file = home.path().join("a.key");
    std::fs::write(&file, "of-the-file\n").unwrap();
    let file = file.display().to_string();
    let shown = async |args: &[&str]| {
        let mut command = hearth(&home, &relay, args);
        command.env("HEARTH_KEY", "of-the-environment");
        let done = finish(command).await;
        assert!(done.status.success(), "{}", done.stderr);
        let requests = relay.requests();
        requests.last().unwrap().headers["authorization"].clone()
    };
    let key = shown(&["ask", "--key-file", &file, "What?"]).await;
    assert_eq!(key, "Bearer of-the-file");
    let key = shown(&["ask", "--key", "said", "What?"]).await;
    assert_eq!(key, "Bearer said");
    let key = shown(&["ask", "What?"]).await;
    assert_eq!(key, "Bearer of-the-environment");
}

#[tokio::test]
async fn no_key_goes_to_another_machine_in_the_clear_unless_that_was_said() {
    let home = Home::new();
    for command in [&["ask", "What?"][..], &["jobs", "list"], &["doctor"]] {
        let asked = async |more: &[&str]| {
            // The address reaches this machine, but does not count as loopback.
            let away = ["--relay", "http://0.0.0.0:1", "--key", "hearth_secret"];
            let mut run = home.command(env!("CARGO_BIN_EXE_hearth"));
            run.args([command, &away, more].concat());
            let done = finish(run).await;
            done.stdout + &done.stderr
        };
        let said = asked(&[]).await;
        assert!(said.contains("--plain-http"), "{command:?}: {said}");
        let said = asked(&["--plain-http"]).await;
        assert!(said.contains("cannot be reached"), "{command:?}: {said}");
    }
}

#[tokio::test]
async fn doctor_says_that_nobody_is_there_to_answer_and_what_the_relay_said_of_a_key() {
    let relay = relay().await;
    relay.settle("/healthz", Answer::json(200, r#"{"status":"ok"}"#));
    let remembered = Step::Head(200, Some("application/json\r\nx-hearth-workers: 0"));
    let models = Step::Send(r#"{"models":[{"name":"tiny:latest"}]}"#.into());
    let nobody = Answer::default().then(remembered).then(models);
    relay.settle("/api/tags", nobody.then(Step::Finish));
    let home = Home::new();
    let done = finish(hearth(&home, &relay, &["doctor"])).await;
    assert_eq!(done.status.code(), Some(1), "{}", done.stdout);
    let said = &done.stdout;
    assert!(said.contains("BROKEN  models    no agent"), "{said}");
    // Without a key an agent would not start here, which is only a note for this command.
    assert!(said.contains("note    settings"), "{said}");
    assert!(said.contains("the relay needs a key"), "{said}");

    // A proxy in front of a relay that is down. It says nothing about the key.
    relay.settle("/healthz", Answer::json(502, "bad gateway"));
    let said = finish(hearth(&home, &relay, &["doctor"])).await.stdout;
    assert!(said.contains("BROKEN  relay"), "{said}");
    assert!(
        said.contains("(HTTP 502) is not a Hearth relay's"),
        "{said}"
    );
    assert!(said.contains("that the relay runs"), "{said}");
    assert!(!said.contains("  key  "), "{said}");
    relay.settle("/healthz", Answer::json(200, r#"{"status":"ok"}"#));

    let refusal = json!({"error": {"code": "key_expired", "message": "its time has passed"}});
    relay.settle("/api/tags", Answer::json(401, &refusal.to_string()));
    let said = finish(hearth(&home, &relay, &["doctor"])).await.stdout;
    assert!(said.contains("its time has passed (key_expired)"), "{said}");

    let config = home.path().join("config/hearth");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("hearth.toml"), "slotts = 1\n").unwrap();
    let said = finish(hearth(&home, &relay, &["doctor"])).await.stdout;
    assert!(said.contains("ok      relay"), "{said}");
    assert!(said.contains("BROKEN  settings"), "{said}");
    assert!(said.contains("slotts"), "{said}");

    let tls = format!("https://{}", relay.url().trim_start_matches("http://"));
    let mut plain = hearth(&home, &relay, &["doctor"]);
    plain.env("HEARTH_RELAY", tls);
    let said = finish(plain).await.stdout;
    assert!(said.contains("cannot be reached: "), "{said}");
    assert!(
        !said.contains("hearth relay`"),
        "something is there: {said}"
    );
}
