//! X1 and X2: the idle desktop app, compared with an empty window of the same size, on a separate
//! display.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use hearth_tests::{process::binary, scripted_ollama::ScriptedOllama, test_bed::TestBed};
use tokio::time::sleep;

use crate::{
    proc::Usage,
    stats::{Figure, Goal},
};

/// Time for a started program to become idle.
const SETTLED: Duration = Duration::from_secs(8);
const WATCHED: Duration = Duration::from_secs(30);

/// A process that ends with the measurement.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guard {
    /// Starts a program that prints one line when it is ready.
    fn with_line(command: &mut Command) -> anyhow::Result<(Self, String)> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = child.stdout.take().context("its output is a pipe")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        Ok((Self(child), line.trim().to_owned()))
    }
}

/// Measures for about a minute and a half.
///
/// # Errors
/// If Xvfb, a session bus or one of the two programs does not start.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let mut xvfb = Command::new("Xvfb");
    xvfb.args([
        "-displayfd",
        "1",
        "-screen",
        "0",
        "1280x800x24",
        "-nolisten",
        "tcp",
    ]);
    let (_xvfb, display) = Guard::with_line(&mut xvfb).context("Xvfb")?;
    let mut bus = Command::new("dbus-daemon");
    bus.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]);
    let (_bus, bus) = Guard::with_line(&mut bus).context("dbus-daemon")?;

    let ollama = ScriptedOllama::start().await?;
    let bed = TestBed::relay_only(&format!("ollama:{}", ollama.url())).await;
    let runtime = bed.home.path().join("run");
    std::fs::create_dir(&runtime)?;
    let on_display = |program: &str| {
        let mut command = bed.home.command(binary(program)).into_std();
        command
            .env("DISPLAY", format!(":{display}"))
            .env("DBUS_SESSION_BUS_ADDRESS", &bus)
            .env("XDG_RUNTIME_DIR", &runtime)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };

    let floor = watch(&mut on_display("examples/empty")).await?;
    let mut app = on_display("hearth-desktop");
    app.args(bed.options()).env("HEARTH_KEY", &bed.worker);
    let app = watch(&mut app).await?;
    let mut agent = bed.home.command(binary("hearth")).into_std();
    agent
        .arg("agent")
        .args(bed.options())
        .env("HEARTH_KEY", &bed.worker);
    let agent = watch(agent.stdout(Stdio::null()).stderr(Stdio::null())).await?;

    let percent = |usage: Usage| 100.0 * usage.cpu.as_secs_f64() / WATCHED.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "kilobytes")]
    let megabytes = |usage: Usage| usage.pss as f64 / 1024.0;
    Ok(vec![
        Figure {
            name: "X1 idle app with overlay, % of a core".to_owned(),
            value: percent(app),
            goal: Goal::AtMost(0.2),
            detail: format!("an empty window {:.2} %", percent(floor)),
        },
        Figure {
            name: "X2 memory with overlay / empty window".to_owned(),
            value: megabytes(app) / megabytes(floor),
            goal: Goal::AtMost(1.1),
            detail: format!(
                "{:.0} MB against {:.0} MB (PSS)",
                megabytes(app),
                megabytes(floor)
            ),
        },
        Figure {
            name: "X2 headless agent, MB".to_owned(),
            value: megabytes(agent),
            goal: Goal::AtMost(30.0),
            detail: format!("idle {:.2} % of a core", percent(agent)),
        },
    ])
}

/// The resources that an idle program and its children use.
async fn watch(command: &mut Command) -> anyhow::Result<Usage> {
    let program = command.get_program().to_owned();
    let mut child = Guard(command.stdin(Stdio::null()).spawn()?);
    sleep(SETTLED).await;
    let ended = child.0.try_wait()?;
    anyhow::ensure!(ended.is_none(), "{} ended at once", program.display());
    let begun = Usage::of_tree(child.0.id())?;
    sleep(WATCHED).await;
    Ok(Usage::of_tree(child.0.id())?.since(begun))
}
