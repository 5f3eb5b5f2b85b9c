//! `hearth`: the relay, the headless agent, and the commands that talk to them.

mod ask;
mod credentials;
mod doctor;
mod jobs;
mod key;
mod monitoring;
mod pair;
mod relay_options;
mod sse;
mod status;
mod stop;
mod store;
mod user;

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use telemetry::Format;
use tokio_util::sync::CancellationToken;

/// The relay allocates per-connection state from all runtime threads. glibc's per-thread heaps keep
/// more free memory in between; mimalloc returns it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lets an application anywhere use the language model on your own machine.
#[derive(Debug, Parser)]
#[command(name = "hearth", version, propagate_version = true)]
#[command(
    after_help = "HEARTH_LOG sets the log filter, for example: info, or info,hearth_relay=debug"
)]
struct Hearth {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a relay: the server that queues jobs and leases them to agents.
    Relay(Box<relay::Args>),
    /// Create, list and revoke the API keys of a relay.
    #[command(subcommand)]
    Key(key::Args),
    /// Create, list and remove the users that log in to a relay with a password.
    #[command(subcommand)]
    User(user::Args),
    /// Run the agent without a desktop: answer a relay's jobs with this machine's model.
    Agent(agent::Args),
    /// Ask one question through a relay.
    Ask(ask::Args),
    /// List, show, retry and cancel jobs of a relay; with a key that has the scope `admin`, of all
    /// accounts.
    #[command(subcommand)]
    Jobs(jobs::Args),
    /// Show what the agent on this machine is doing.
    Status(status::Args),
    /// Pause the agent on this machine: running jobs finish, no new job starts. Kept across
    /// restarts.
    Pause,
    /// Resume the agent on this machine.
    Resume,
    /// List, approve, deny and revoke programs that may send commands to the agent without its
    /// token.
    #[command(subcommand)]
    Pair(pair::Args),
    /// Check every part of the way from a question to its answer, and say how to fix a broken one.
    Doctor(doctor::Args),
}

fn main() -> ExitCode {
    let asked = relay_options::parsed();
    match asked.and_then(|asked| asked.map_or(Ok(()), |hearth| start(hearth.command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "hearth: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> anyhow::Result<()> {
    // Only the relay and the agent log at `info`; the other commands print their result.
    let fallback = match command {
        Command::Relay(_) | Command::Agent(_) => "info",
        Command::Key(_)
        | Command::User(_)
        | Command::Ask(_)
        | Command::Jobs(_)
        | Command::Status(_)
        | Command::Pause
        | Command::Resume
        | Command::Pair(_)
        // `doctor` reports a bad certificate in its own words.
        | Command::Doctor(_) => "error,rustls_platform_verifier=off",
    };
    let format = if std::io::stderr().is_terminal() {
        Format::Human
    } else {
        Format::Json
    };
    telemetry::init(format, fallback)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(run(command));
    // Does not wait for a thread that still reads standard input.
    runtime.shutdown_background();
    outcome
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Relay(args) => {
            let stop = CancellationToken::new();
            stop::with(&stop, args.run(stop.clone())).await
        }
        Command::Key(args) => args.run().await,
        Command::User(args) => args.run().await,
        Command::Agent(args) => run_agent(args).await,
        Command::Ask(args) => args.run().await,
        Command::Jobs(args) => args.run().await,
        Command::Status(args) => args.run().await,
        Command::Pause => monitoring::set(false).await,
        Command::Resume => monitoring::set(true).await,
        Command::Pair(args) => args.run().await,
        Command::Doctor(args) => args.run().await,
    }
}

async fn run_agent(args: agent::Args) -> anyhow::Result<()> {
    let settings = agent::Settings::try_from(args)?;
    let mut out = std::io::stdout();
    if settings.print_config {
        write!(out, "{}", settings.explain())?;
        return Ok(());
    }
    let agent = agent::Agent::start(settings, agent::Headless::default()).await?;
    let handle = agent.handle();
    writeln!(out, "status on ws://{}", handle.hub().addr)?;
    if let Some(addr) = handle.http() {
        writeln!(out, "local HTTP on http://{addr}")?;
    }
    let stop = CancellationToken::new();
    let end = async {
        tokio::pin! { let running = agent.run(); }
        tokio::select! {
            ended = &mut running => return ended,
            () = stop.cancelled() => handle.stop(),
        }
        running.await
    };
    stop::with(&stop, end).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory as _;

    use super::Hearth;

    /// Collects each variable that an option reads, with the option's value names.
    fn variables(command: &clap::Command, found: &mut Vec<(String, String)>) {
        for option in command.get_arguments() {
            let help = option
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let told = help
                .split("[env: ")
                .nth(1)
                .and_then(|rest| rest.split(']').next());
            // Only the first name is Hearth's own; further ones belong to the system or to another
            // option.
            let told = told.and_then(|names| names.split(", ").next());
            let read = option
                .get_env()
                .map(|name| name.to_string_lossy().into_owned());
            let names = option.get_value_names().unwrap_or_default().join(" ");
            // In the environment, a switch takes a boolean.
            let value = if option.get_action().takes_values() {
                names
            } else {
                "BOOL".to_owned()
            };
            let names = told.map(str::to_owned).into_iter().chain(read);
            found.extend(names.map(|name| (name, value.clone())));
        }
        for inner in command.get_subcommands() {
            variables(inner, found);
        }
    }

    #[test]
    fn a_variable_means_one_thing_to_all_commands() {
        let mut found = Vec::new();
        variables(&Hearth::command(), &mut found);
        let mut meanings = BTreeMap::new();
        for (name, value) in found {
            let known: &String = meanings
                .entry(name.clone())
                .or_insert_with(|| value.clone());
            assert_eq!(*known, value, "{name}");
        }
        for name in ["HEARTH_RELAY", "HEARTH_MODEL", "HEARTH_ASK_MODEL"] {
            assert!(meanings.contains_key(name), "{name}: {meanings:?}");
        }
    }
}
