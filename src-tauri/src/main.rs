//! `hearth-desktop`: the agent with a tray, an overlay and a window.
//!
//! The `agent` crate makes all decisions; this program draws its output and forwards clicks. The
//! pages follow the status hub over its WebSocket, like any other client.

#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

mod act_id;
mod commands;
mod login;
#[cfg(target_os = "linux")]
mod notices;
mod overlay;
mod pages;
mod program;
mod shell;
mod signal;
mod tray;
mod view;
mod window;

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::Parser;
use telemetry::Format;

/// Lets applications anywhere use the language model on this machine, and shows its activity.
#[derive(Debug, Parser)]
#[command(name = "hearth-desktop", version)]
struct Desktop {
    #[command(flatten)]
    agent: agent::Args,
}

fn main() -> ExitCode {
    match start(Desktop::parse().agent) {
        Ok(code) => code,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "hearth-desktop: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(args: agent::Args) -> anyhow::Result<ExitCode> {
    let format = if std::io::stderr().is_terminal() {
        Format::Human
    } else {
        Format::Json
    };
    telemetry::init(format, "info")?;
    let settings = agent::Settings::try_from(args)?;
    if settings.print_config {
        write!(std::io::stdout(), "{}", settings.explain())?;
        return Ok(ExitCode::SUCCESS);
    }
    program::run(settings)
}
