//! Plants bugs, each of which its proof must find. A proof that fails without a bug proves nothing.

use std::{
    io::{self, Write as _},
    path::Path,
};

use hearth_tests::{
    planted::{Bug, Proof, Workspace, bugs},
    process::binary,
};
use tokio::process::Command;

/// Plants each bug in turn, or those named after `controls`.
pub(crate) async fn run(wanted: &[String]) -> io::Result<()> {
    let chosen = chosen(wanted)?;
    let mut out = io::stdout();
    let workspace = Workspace::new(binary("hearth-prove").with_file_name("planted"));
    let mut proofs: Vec<(Proof, Result<String, String>)> = Vec::new();
    workspace.prepare(&[])?;
    for bug in &chosen {
        if proofs.iter().any(|(proof, _)| is_alike(*proof, bug)) {
            continue;
        }
        let sound = without_bugs(&workspace, bug.found_by).await;
        let how = sound.as_ref().unwrap_or_else(|why| why);
        writeln!(out, "without bugs, {}: {how}", what(bug.found_by))?;
        proofs.push((bug.found_by, sound));
    }
    let mut missed = Vec::new();
    for bug in &chosen {
        writeln!(out, "planting {} …", bug.name)?;
        let unsound = proofs.iter().find(|(proof, _)| is_alike(*proof, bug));
        let found = match unsound {
            Some((_, Err(_))) => Err("its proof fails without it".to_owned()),
            Some((_, Ok(_))) | None => planted(&workspace, bug).await,
        };
        match found {
            Ok(how) => writeln!(out, "{}: found out: {how}", bug.name)?,
            Err(why) => {
                missed.push(bug.name);
                writeln!(out, "{}: NOT FOUND: {why}", bug.name)?;
            }
        }
    }
    let (all, found) = (chosen.len(), chosen.len() - missed.len());
    writeln!(out, "{all} planted bugs, {found} found")?;
    if missed.is_empty() {
        return Ok(());
    }
    let missed = missed.join(", ");
    Err(io::Error::other(format!("not found: {missed}")))
}

fn chosen(wanted: &[String]) -> io::Result<Vec<&'static Bug>> {
    let mut names = wanted.iter().filter(|name| *name != "controls").peekable();
    if names.peek().is_none() {
        return Ok(bugs().collect());
    }
    let bug = |name: &String| {
        let bug = bugs().find(|bug| bug.name == name);
        bug.ok_or_else(|| io::Error::other(format!("no bug is called {name}")))
    };
    names.map(bug).collect()
}

/// Whether a bug is found by this kind of proof.
fn is_alike(proof: Proof, bug: &Bug) -> bool {
    what(proof) == what(bug.found_by)
}

fn what(proof: Proof) -> String {
    match proof {
        Proof::Kills => "light-kills".into(),
        Proof::PowerCuts => "few-power-cuts".into(),
        Proof::Hostile => "light-hostile".into(),
        Proof::Erasure => "erasure".into(),
        Proof::Figure { bench, named, .. } => format!("bench {bench}: {named}*"),
        Proof::Tests {
            of, kind, named, ..
        } => format!("{of} {kind} {named}*"),
    }
}

/// The summary of a proof without any bug; an error if the proof fails.
async fn without_bugs(workspace: &Workspace, proof: Proof) -> Result<String, String> {
    match proof {
        Proof::Kills | Proof::PowerCuts | Proof::Hostile | Proof::Erasure => {
            match verdict(&what(proof), None).await? {
                (true, verdict) => Ok(verdict),
                (false, verdict) => Err(verdict),
            }
        }
        Proof::Figure {
            of_relay,
            bench,
            named,
        } => match figure(workspace, of_relay.then_some("relay"), bench, named).await? {
            (true, line) => Ok(line),
            (false, line) => Err(line),
        },
        Proof::Tests {
            of, kind, named, ..
        } => {
            let ran = workspace.tests(of, kind, named).await.map_err(told)?;
            if ran.failed.is_empty() {
                Ok(format!("{} tests pass", ran.passed))
            } else {
                Err(format!("FAILS: {}", ran.failed.join(", ")))
            }
        }
    }
}

/// How the bug was found; an error if it was not.
async fn planted(workspace: &Workspace, bug: &Bug) -> Result<String, String> {
    workspace.prepare(bug.edits).map_err(told)?;
    match bug.found_by {
        Proof::Kills | Proof::PowerCuts | Proof::Hostile | Proof::Erasure => {
            let relay = workspace.relay(bug.name).await.map_err(told)?;
            match verdict(&what(bug.found_by), Some(&relay)).await? {
                (true, verdict) => Err(verdict),
                (false, verdict) => Ok(verdict),
            }
        }
        Proof::Figure {
            of_relay,
            bench,
            named,
        } => match figure(workspace, of_relay.then_some(bug.name), bench, named).await? {
            (true, line) => Err(line),
            (false, line) => Ok(line),
        },
        Proof::Tests {
            of,
            kind,
            named,
            by,
        } => {
            let ran = workspace.tests(of, kind, named).await.map_err(told)?;
            let others = ran.failed.len().saturating_sub(1);
            if ran.failed.iter().any(|name| is_called(name, by)) {
                Ok(format!("{by} fails, and {others} more"))
            } else if ran.failed.is_empty() {
                Err("all tests pass".into())
            } else {
                Err(format!("{by} passes; only {} fails", ran.failed.join(", ")))
            }
        }
    }
}

/// Whether a figure of the copy is near its goal, and its line.
async fn figure(
    workspace: &Workspace,
    relay: Option<&str>,
    bench: &str,
    named: &str,
) -> Result<(bool, String), String> {
    let relay = match relay {
        Some(name) => Some(workspace.relay(name).await.map_err(told)?),
        None => None,
    };
    let figures = workspace.figures(bench, relay.as_deref()).await;
    let figures = figures.map_err(told)?;
    let mut figures = figures.into_iter();
    let figure = figures.find(|figure| figure.name.starts_with(named));
    let figure = figure.ok_or_else(|| format!("{bench} has no figure {named}"))?;
    let words: Vec<_> = figure.line.split_whitespace().collect();
    Ok((figure.is_near, words.join(" ")))
}

fn is_called(path: &str, name: &str) -> bool {
    path.rsplit("::").next() == Some(name)
}

/// Whether a proof passes with this relay, with its summary. A proof without a verdict may have
/// failed for any reason, and has found nothing.
async fn verdict(proof: &str, relay: Option<&Path>) -> Result<(bool, String), String> {
    let this = std::env::current_exe().map_err(told)?;
    let mut command = Command::new(this);
    command.arg(proof).kill_on_drop(true);
    if let Some(relay) = relay {
        command.env("HEARTH_RELAY_BIN", relay);
    }
    let done = command.output().await.map_err(told)?;
    let said = String::from_utf8_lossy(&done.stdout).trim_end().to_owned();
    if said.is_empty() {
        let why = String::from_utf8_lossy(&done.stderr).trim_end().to_owned();
        return Err(format!("no verdict: {why}"));
    }
    Ok((done.status.success(), said))
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed on by map_err")]
fn told(error: io::Error) -> String {
    error.to_string()
}
