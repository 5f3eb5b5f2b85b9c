//! `hearth pair`: which programs may give commands to the agent on this machine.

use std::io::Write as _;

use proto::status::{
    CommandArgs,
    pair::{Pairs, Program},
};
use status::{HubAddress, request};

use crate::status::not_running;

/// `hearth pair …`.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Args {
    /// List the programs that wait for approval and those that are always allowed.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Approve the pending command of a program.
    Approve {
        /// The id that `hearth pair list` shows.
        id: String,
        /// Also allow all later commands of this program, until `hearth pair revoke`.
        #[arg(long)]
        always: bool,
    },
    /// Refuse the pending command of a program.
    Deny {
        /// The id that `hearth pair list` shows.
        id: String,
    },
    /// Stop allowing a program that is always allowed.
    Revoke {
        /// The id that `hearth pair list` shows.
        id: String,
    },
}

impl Args {
    /// Sends the request to the running agent, and prints the response.
    ///
    /// # Errors
    /// If no agent is running, or the id is unknown.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let folder = agent::Folders::of_user()?.data;
        let hub = HubAddress::find(&folder).ok_or_else(not_running)?;
        let none = CommandArgs::default();
        let (word, args) = match &self {
            Self::List { .. } => ("pairs", none),
            Self::Approve { id, always } => {
                let (approval, always) = (Some(id.clone()), Some(*always));
                let args = CommandArgs {
                    approval,
                    always,
                    ..none
                };
                ("approve", args)
            }
            Self::Deny { id } => {
                let approval = Some(id.clone());
                ("deny", CommandArgs { approval, ..none })
            }
            Self::Revoke { id } => {
                let grant = Some(id.clone());
                ("revoke", CommandArgs { grant, ..none })
            }
        };
        let given = request(&hub, word, args).await?;
        let mut out = std::io::stdout();
        match self {
            Self::List { json: true } => writeln!(out, "{given}")?,
            Self::List { json: false } => write!(out, "{}", list(&serde_json::from_value(given)?))?,
            Self::Approve { .. } | Self::Deny { .. } | Self::Revoke { .. } => {}
        }
        Ok(())
    }
}

fn list(pairs: &Pairs) -> String {
    let mut text = String::new();
    for waiting in &pairs.waiting {
        let (id, who) = (&waiting.id, describe(&waiting.who));
        text += &format!("waiting  {id}  {who}  wants {}\n", waiting.command);
    }
    for allowed in &pairs.allowed {
        text += &format!("allowed  {}  {}\n", allowed.id, describe(&allowed.who));
    }
    if text.is_empty() {
        "no program is waiting, and none is allowed\n".clone_into(&mut text);
    }
    text
}

fn describe(who: &Program) -> String {
    let title = who.title();
    let mut text = if title.is_empty() { "a program" } else { title }.to_owned();
    let hints = [
        who.file.clone(),
        who.process.map(|process| format!("process {process}")),
        who.origin.clone(),
    ];
    let hints: Vec<_> = hints.into_iter().flatten().collect();
    if !hints.is_empty() {
        text += &format!(" ({})", hints.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use proto::{
        Timestamp,
        status::pair::{Allowed, Waiting},
    };

    use super::*;

    #[test]
    fn the_list_names_each_program_and_its_number() {
        assert_eq!(
            list(&Pairs::default()),
            "no program is waiting, and none is allowed\n"
        );
        let who = Program {
            name: "dock".into(),
            file: Some("/usr/bin/python3".into()),
            process: Some(7),
            origin: None,
        };
        let pairs = Pairs {
            waiting: vec![Waiting {
                id: "3".into(),
                who: who.clone(),
                command: "quit".into(),
                until: Timestamp(0),
            }],
            allowed: vec![Allowed {
                id: "1".into(),
                who,
                since: Timestamp(0),
            }],
        };
        assert_eq!(
            list(&pairs),
            "waiting  3  dock (/usr/bin/python3, process 7)  wants quit\n\
             allowed  1  dock (/usr/bin/python3, process 7)\n"
        );
        assert_eq!(describe(&Program::default()), "a program");
    }
}
