//! `hearth-prove [WHAT…]`: the long proofs, each printed from its own counts. `./x prove`.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::{Command, ExitCode},
};

use hearth_tests::{
    kills::{self, Plan, Report},
    planted::{BUGS, Bug, Proof},
    process::binary,
};

const USAGE: &str =
    "usage: hearth-prove [kills|light-kills|power-cuts|few-power-cuts|controls [BUG…]]…";

#[tokio::main]
async fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() {
        wanted = ["kills", "power-cuts", "controls"]
            .map(str::to_owned)
            .into();
    }
    for what in &wanted {
        let done = match what.as_str() {
            "kills" => prove(&Plan::kills(20, 1)).await,
            "light-kills" => prove(&Plan::kills(20, 1).light()).await,
            "power-cuts" => prove(&Plan::power_cuts(50, 2)).await,
            "few-power-cuts" => prove(&Plan::power_cuts(3, 2)).await,
            "controls" => controls(&wanted),
            bug if BUGS.iter().any(|planted| planted.name == bug) => Ok(()),
            _ => Err(io::Error::other(USAGE)),
        };
        if let Err(error) = done {
            drop(writeln!(io::stderr(), "hearth-prove: {what}: {error}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

async fn prove(plan: &Plan) -> io::Result<()> {
    let report: Report = kills::run(plan).await?;
    writeln!(io::stdout(), "{report}")?;
    if report.verdict.is_clean() {
        Ok(())
    } else {
        Err(io::Error::other("a promise was broken"))
    }
}

/// Plants each bug in turn, or those that are named too, and sees that its proof fails.
fn controls(named: &[String]) -> io::Result<()> {
    let mut out = io::stdout();
    let folder: PathBuf = binary("hearth").with_file_name("planted");
    let mut missed = Vec::new();
    let is_named = |bug: &&Bug| named.iter().any(|name| name == bug.name);
    let all = !BUGS.iter().any(|bug| is_named(&bug));
    for bug in BUGS.iter().filter(|bug| all || is_named(bug)) {
        writeln!(out, "planting {} …", bug.name)?;
        let relay = bug.build(&folder)?;
        let proof = match bug.found_by {
            Proof::Kills => "light-kills",
            Proof::PowerCuts => "few-power-cuts",
        };
        let run = Command::new(std::env::current_exe()?)
            .arg(proof)
            .env("HEARTH_RELAY_BIN", relay)
            .output()?;
        let found = String::from_utf8_lossy(&run.stdout);
        let found = found.trim_end();
        let how = if run.status.success() {
            missed.push(bug.name);
            "NOT FOUND"
        } else if found.is_empty() {
            "found out, without a verdict"
        } else {
            "found out"
        };
        writeln!(out, "{}: {how}: {found}", bug.name)?;
        write!(out, "{}", String::from_utf8_lossy(&run.stderr))?;
    }
    if missed.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "not found: {}",
        missed.join(", ")
    )))
}
