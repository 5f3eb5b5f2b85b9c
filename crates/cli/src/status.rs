//! `hearth status`: what the agent on this machine is doing.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::Arc,
    time::Duration,
};

use proto::status::{HopState, LiveJob, Phase, Publisher, Status};
use status::{HubAddress, Link, Places, Ports, Subscriber, is_printable, strip_control_chars};
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// `hearth status [--watch]`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Follow the status; print one line for each change.
    #[arg(long, short)]
    watch: bool,
    /// Wait until the agent is in this phase (`ready`, `paused` …), then exit; repeat for several.
    #[arg(long, value_name = "PHASE", value_parser = phase, conflicts_with = "watch")]
    until: Vec<Phase>,
    /// Give up after this many seconds.
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    timeout: u64,
    /// Print each status as the JSON that the hub sent.
    #[arg(long)]
    json: bool,
    /// Print only the address of the status hub.
    #[arg(long, conflicts_with_all = ["watch", "until", "json"])]
    address: bool,
}

fn phase(word: &str) -> Result<Phase, String> {
    serde_json::from_value(word.into()).map_err(|_| {
        "a phase is one of starting, ready, working, listening, speaking, paused, connecting, \
         relay_offline, engine_offline, error, stopping"
            .to_owned()
    })
}

/// The name of a phase, as `--until` takes it.
fn word(phase: Phase) -> String {
    let word = serde_json::to_value(phase).ok();
    let word = word.as_ref().and_then(|word| word.as_str());
    word.unwrap_or_default().to_owned()
}

impl Args {
    /// Prints the status once, or follows it.
    ///
    /// # Errors
    /// If no agent is running, or a phase of `--until` is not reached in time.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let folder = agent::Folders::of_user()?.data;
        if self.address {
            let hub = HubAddress::find(&folder).ok_or_else(not_running)?;
            writeln!(std::io::stdout(), "ws://{}", hub.addr)?;
            return Ok(());
        }
        // A script acts on the result of `--until`, so only a hub that proves it has this user's
        // token counts.
        let places = match self.until.as_slice() {
            [] => Places::In(folder, Ports::default()),
            [_, ..] => Places::Own(folder),
        };
        let (subscriber, handle) = Subscriber::new(places);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(subscriber.run(stop.clone()));
        let link = handle.link();
        let limit = Duration::from_secs(self.timeout);
        let outcome = if self.watch {
            self.follow(link).await
        } else if self.until.is_empty() {
            match timeout(limit, live(link)).await {
                Ok(Some(status)) => self.print(&status, false),
                Ok(None) | Err(_) => Err(not_running()),
            }
        } else {
            self.wait(link, limit).await
        };
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        outcome
    }

    async fn wait(&self, mut link: watch::Receiver<Link>, limit: Duration) -> anyhow::Result<()> {
        let is_wanted =
            |link: &Link| matches!(link, Link::Live(now) if self.until.contains(&now.status));
        let reached = match timeout(limit, link.wait_for(is_wanted)).await {
            Ok(Ok(reached)) => Some(reached.clone()),
            Ok(Err(_)) | Err(_) => None,
        };
        match (reached, &*link.borrow()) {
            (Some(Link::Live(status)), _) => self.print(&status, false),
            (_, Link::Live(status) | Link::Stale { last: status, .. }) => {
                let wanted: Vec<_> = self.until.iter().map(|phase| word(*phase)).collect();
                anyhow::bail!(
                    "not {} within {} s: {}",
                    wanted.join(" or "),
                    self.timeout,
                    line(status)
                )
            }
            (_, Link::Lost { .. }) => Err(not_running()),
        }
    }

    async fn follow(&self, mut link: watch::Receiver<Link>) -> anyhow::Result<()> {
        let mut said_lost = false;
        loop {
            let now = link.borrow_and_update().clone();
            match now {
                Link::Live(status) => {
                    said_lost = false;
                    self.print(&status, false)?;
                }
                Link::Stale { last, .. } => self.print(&last, true)?,
                Link::Lost { .. } if !said_lost && !self.json => {
                    said_lost = true;
                    writeln!(std::io::stderr(), "no agent is running; waiting for one")?;
                }
                Link::Lost { .. } => {}
            }
            tokio::select! {
                changed = link.changed() => changed?,
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }

    fn print(&self, status: &Status, stale: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        if self.json {
            writeln!(out, "{}", json(status, stale)?)?;
            return Ok(());
        }
        let text = if self.watch || !self.until.is_empty() || !out.is_terminal() {
            line(status)
        } else {
            block(status)
        };
        let mark = if stale {
            " (stale: no update received)"
        } else {
            ""
        };
        writeln!(out, "{text}{mark}")?;
        Ok(())
    }
}

pub(crate) async fn live(mut link: watch::Receiver<Link>) -> Option<Arc<Status>> {
    let link = link
        .wait_for(|link| matches!(link, Link::Live(_)))
        .await
        .ok()?
        .clone();
    match link {
        Link::Live(status) => Some(status),
        Link::Stale { .. } | Link::Lost { .. } => None,
    }
}

pub(crate) fn not_running() -> anyhow::Error {
    anyhow::anyhow!("no agent is running here; start one with `hearth agent` or `hearth-desktop`")
}

/// The status as JSON; `"stale": true` is added if it may be outdated.
fn json(status: &Status, stale: bool) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(status)?;
    if stale && let Some(fields) = value.as_object_mut() {
        fields.insert("stale".to_owned(), true.into());
    }
    let text = serde_json::to_string(&value)?;
    Ok(text.chars().fold(String::new(), |mut text, sign| {
        // JSON does not require these control and formatting characters to be escaped.
        if is_printable(sign) {
            text.push(sign);
        } else {
            text += &format!("\\u{:04x}", u32::from(sign));
        }
        text
    }))
}

/// Formats the status as one line for scripts and `--watch`; the phase comes first.
fn line(status: &Status) -> String {
    let word = serde_json::to_value(status.status).unwrap_or_default();
    let mut line = format!("{} {}", word.as_str().unwrap_or("unknown"), status.text);
    for job in &status.jobs {
        line += &format!(" [{}]", job_line(job));
    }
    for (hop, name) in [(&status.relay, "relay"), (&status.engine, "engine")] {
        if hop.state == HopState::Down {
            line += &format!(" ({name}: {})", hop.problem);
        }
    }
    for publisher in &status.publishers {
        line += &format!(" {{{}}}", publisher_line(publisher));
    }
    strip_control_chars(&line)
}

fn publisher_line(publisher: &Publisher) -> String {
    let mut text = format!("{}: {}", publisher.name, publisher.fields.join(", "));
    if let Some(origin) = &publisher.origin {
        text += &format!(", read from {origin}");
    }
    if publisher.stale {
        text += ", stale";
    }
    text
}

fn job_line(job: &LiveJob) -> String {
    let LiveJob {
        who,
        model,
        op,
        tokens,
        tokens_per_second,
        ..
    } = job;
    format!("{who} {op} {model} {tokens} tokens {tokens_per_second:.1}/s")
}

/// Formats the status as a few lines for people.
fn block(status: &Status) -> String {
    let hop = |hop: &proto::status::Hop| match hop.state {
        HopState::Up => format!("up    {}", hop.name),
        HopState::Down => format!("down  {}: {}", hop.name, hop.problem),
        HopState::Unknown => format!("?     {}", hop.name),
    };
    let mut lines = vec![
        status.text.clone(),
        format!("  relay   {}", hop(&status.relay)),
        format!("  engine  {}", hop(&status.engine)),
    ];
    let jobs = status.jobs.iter().map(job_line);
    lines.extend(jobs.map(|job| format!("  job     {job}")));
    let others = status.publishers.iter().map(publisher_line);
    lines.extend(others.map(|other| format!("  other   {other}")));
    let lines: Vec<String> = lines.iter().map(|line| strip_control_chars(line)).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use proto::status::Hop;

    use super::*;

    #[test]
    fn a_phase_is_called_what_it_was_asked_for_by() {
        for asked in ["ready", "paused", "relay_offline"] {
            assert_eq!(word(phase(asked).unwrap()), asked);
        }
    }

    #[test]
    fn a_line_begins_with_the_word_scripts_look_for_and_names_the_broken_hop() {
        let status = Status {
            status: Phase::RelayOffline,
            text: "Relay offline".into(),
            relay: Hop {
                state: HopState::Down,
                name: "r".into(),
                problem: "refused".into(),
            },
            ..Status::default()
        };
        assert_eq!(
            line(&status),
            "relay_offline Relay offline (relay: refused)"
        );
        assert!(block(&status).contains("down  r: refused"));
    }

    #[test]
    fn another_assistant_is_named_and_what_may_be_wrong_is_marked() {
        let publisher = Publisher {
            name: "assistant".into(),
            fields: vec!["is_speaking".into()],
            origin: Some("127.0.0.1:6001".into()),
            stale: true,
        };
        let status = Status {
            publishers: vec![publisher],
            ..Status::default()
        };
        let said = "assistant: is_speaking, read from 127.0.0.1:6001, stale";
        assert!(line(&status).contains(said) && block(&status).contains(said));
        assert!(json(&status, true).unwrap().ends_with(r#""stale":true}"#));
        assert!(!json(&Status::default(), false).unwrap().contains("stale"));
    }

    #[test]
    fn nothing_that_others_say_steers_the_terminal_or_makes_a_line_of_its_own() {
        let evil = "\u{1b}]52;c;x\u{7}\u{9b}2J\u{202e}\nready Ready";
        let hop = Hop {
            state: HopState::Down,
            name: evil.into(),
            problem: evil.into(),
        };
        let status = Status {
            text: evil.into(),
            relay: hop.clone(),
            engine: hop,
            publishers: vec![Publisher {
                name: evil.into(),
                fields: vec![evil.into()],
                origin: Some(evil.into()),
                stale: false,
            }],
            ..Status::default()
        };
        let steers = |sign: char| sign.is_control() || sign == '\u{202e}';
        assert!(!line(&status).contains(steers), "{:?}", line(&status));
        let block = block(&status);
        assert_eq!(block.lines().count(), 4, "{block:?}");
        assert!(
            block.lines().all(|line| !line.contains(steers)),
            "{block:?}"
        );
        let json = json(&status, false).unwrap();
        assert!(!json.contains(steers), "{json:?}");
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }

    #[test]
    fn a_phase_is_read_by_its_word_and_a_wrong_one_is_told_the_right_ones() {
        assert_eq!(phase("relay_offline"), Ok(Phase::RelayOffline));
        assert!(
            phase("Ready")
                .unwrap_err()
                .contains("one of starting, ready")
        );
    }
}
