//! `hearth-prove [WHAT…]`: the long proofs, each printed from its own counts. `./x prove`.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::{Command, ExitCode},
};

use hearth_tests::{
    headline::{Headline, erasure, hostile},
    kills::{self, Plan},
    planted::{BUGS, Bug, Proof},
    process::binary,
};

const USAGE: &str = "usage: hearth-prove [all] [kills] [light-kills] [power-cuts] \
    [few-power-cuts] [weather] [hostile] [erasure] [controls [BUG…]]";

/// What the headline is made of.
const ALL: [&str; 5] = ["kills", "power-cuts", "weather", "hostile", "erasure"];

#[tokio::main]
async fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() || wanted == ["all"] {
        wanted = ALL.map(str::to_owned).into();
    }
    match run(&wanted).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "hearth-prove: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(wanted: &[String]) -> io::Result<()> {
    let mut out = io::stdout();
    let mut headline = Headline::default();
    if wanted.iter().any(|what| what == "controls") {
        return controls(wanted);
    }
    for what in wanted {
        let plan = match what.as_str() {
            "kills" => Plan::kills(20, 1),
            "light-kills" => Plan::kills(20, 1).light(),
            "power-cuts" => Plan::power_cuts(50, 2),
            "few-power-cuts" => Plan::power_cuts(3, 2),
            "weather" => Plan::weather(4, 3),
            "hostile" => {
                let more = hostile(20_000, 40, 4).await?;
                writeln!(out, "{what}: {}", more.assault)?;
                headline.assault.add(more.assault);
                headline.leaked.extend(more.leaked);
                continue;
            }
            "erasure" => {
                let more = erasure(5).await?;
                writeln!(out, "{what}: {}", more.verdict)?;
                headline.verdict.add(more.verdict);
                headline.leaked.extend(more.leaked);
                continue;
            }
            _ => return Err(io::Error::other(USAGE)),
        };
        let report = kills::run(&plan).await?;
        writeln!(out, "{what}: {report}")?;
        headline.add(report);
    }
    writeln!(out, "{headline}")?;
    if headline.is_clean() {
        Ok(())
    } else {
        Err(io::Error::other("a promise was broken"))
    }
}

/// Plants each bug in turn, or those that are named too, and sees that its proof fails.
fn controls(named: &[String]) -> io::Result<()> {
    let mut out = io::stdout();
    let folder: PathBuf = binary("hearth").with_file_name("planted");
    let (mut planted, mut missed) = (0, Vec::new());
    let is_named = |bug: &&Bug| named.iter().any(|name| name == bug.name);
    let all = !BUGS.iter().any(|bug| is_named(&bug));
    for bug in BUGS.iter().filter(|bug| all || is_named(bug)) {
        planted += 1;
        writeln!(out, "planting {} …", bug.name)?;
        let proof = match bug.found_by {
            Proof::Kills => "light-kills",
            Proof::PowerCuts => "few-power-cuts",
            Proof::Tests { of, kind, named } => {
                let failed = bug.test(&folder, of, kind, named)?;
                let Some(first) = failed.first() else {
                    missed.push(bug.name);
                    writeln!(out, "{}: NOT FOUND", bug.name)?;
                    continue;
                };
                writeln!(
                    out,
                    "{}: found out by {} and {} more",
                    bug.name,
                    first,
                    failed.len() - 1
                )?;
                continue;
            }
        };
        let relay = bug.build(&folder)?;
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
    writeln!(
        out,
        "{planted} planted bugs, {} found",
        planted - missed.len()
    )?;
    if missed.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "not found: {}",
        missed.join(", ")
    )))
}
