//! `hearth key`: creates, lists and revokes API keys in a relay's store, whether or not the relay
//! is running.

use std::{collections::BTreeSet, io::Write as _, time::Duration};

use clap::ValueEnum;
use proto::{Account, Priority, Timestamp};
use queue::{Ceiling, KeyRecord, Keys, ModelPattern, ModelPatterns, Scope, Serve};
use relay::{
    SystemWorld, World as _,
    keys::{KeyFor, LASTING_MAX, check, mint, served, view},
};

use crate::store::Store;

/// `hearth key create|list|revoke`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// Create a key and print it once, on the last line.
    Create(Create),
    /// List the keys, without their secrets.
    List {
        #[command(flatten)]
        store: Store,
        /// Print a JSON array, as `GET /api/admin/keys` answers; times are milliseconds since 1970.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key; its open connections are closed within seconds.
    Revoke {
        #[command(flatten)]
        store: Store,
        /// The key's name or id.
        #[arg(value_name = "NAME")]
        key: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    store: Store,
    /// A name for the key; the owner of the agent sees it as the requester.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What the key may do; repeat for several scopes.
    #[arg(long = "scope", value_enum, required = true, value_name = "SCOPE")]
    scopes: Vec<KeyScope>,
    /// The account whose jobs the key submits and reads.
    #[arg(long, default_value = "default", value_name = "ACCOUNT")]
    account: Account,
    /// A further account whose jobs a `work` key may lease, or `all`; repeat for several.
    #[arg(long, value_name = "ACCOUNT")]
    serve: Vec<String>,
    /// A model that the key may use, or that its agent may run; `*` and `?` are wildcards. Repeat
    /// for several; without it, all models.
    #[arg(long = "model", value_name = "PATTERN")]
    models: Vec<ModelPattern>,
    /// The highest priority of the key's jobs: 1 is the highest, 10 the lowest, 5 the default.
    #[arg(long, value_name = "N", value_parser = priority)]
    max_priority: Option<Priority>,
    /// Let the key expire after this time: 90s, 15m, 12h, 30d or 8w.
    #[arg(long, value_name = "DURATION", value_parser = lasting)]
    expires: Option<Duration>,
}

/// Parses a priority from 1 to 10.
pub(crate) fn priority(text: &str) -> Result<Priority, String> {
    let level = text.parse().ok().and_then(Priority::new);
    level.ok_or_else(|| "a priority must be a number from 1 to 10".to_owned())
}

fn lasting(text: &str) -> Result<Duration, String> {
    let wrong = || "use a number and a unit, for example 90s, 15m, 12h, 30d or 8w".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        'w' => 7 * 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let lasting = number.checked_mul(seconds).map(Duration::from_secs);
    let lasting =
        lasting.filter(|lasting| (1..=LASTING_MAX.as_secs()).contains(&lasting.as_secs()));
    lasting.ok_or_else(|| "a key's lifetime must be between 1 second and 100 years".to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeyScope {
    /// Submit and cancel jobs.
    Enqueue,
    /// Read jobs, answers and models.
    Read,
    /// Lease and answer jobs: what an agent needs.
    Work,
    /// Administer the relay: the dashboard, the keys, the jobs of all accounts, and the models of
    /// agents that allow it. Gives no right to submit jobs or to read prompts and answers.
    Admin,
}

impl From<KeyScope> for Scope {
    fn from(scope: KeyScope) -> Self {
        match scope {
            KeyScope::Enqueue => Self::Enqueue,
            KeyScope::Read => Self::Read,
            KeyScope::Work => Self::Work,
            KeyScope::Admin => Self::Admin,
        }
    }
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If the store cannot be opened or written, or the name is taken or unknown.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run().await,
            Self::List { store, json } => list(&*store.keys().await?, json).await,
            Self::Revoke { store, key } => {
                let revoked = store
                    .keys()
                    .await?
                    .revoke_key(SystemWorld.now(), &key)
                    .await?;
                anyhow::ensure!(revoked, "no active key has the name or id {key:?}");
                writeln!(std::io::stdout(), "revoked {key}")?;
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self) -> anyhow::Result<()> {
        check(&self.name, self.expires).map_err(anyhow::Error::msg)?;
        let scopes: BTreeSet<Scope> = self.scopes.iter().copied().map(Scope::from).collect();
        anyhow::ensure!(
            self.serve.is_empty() || scopes.contains(&Scope::Work),
            "--serve is for keys with --scope work"
        );
        let words: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
        let for_ = KeyFor {
            serve: served(&self.account, &self.serve)?,
            name: self.name.clone(),
            account: self.account.clone(),
            scopes,
            ceiling: Ceiling {
                models: ModelPatterns::new(self.models.clone()),
                priority: self.max_priority,
            },
            expires_at: self.expires.map(|lasting| SystemWorld.now() + lasting),
        };
        let [a, b, c, d, e, f, ..] = SystemWorld.random()?;
        let (text, record) = mint(
            for_,
            [a, b, c, d, e, f],
            SystemWorld.random()?,
            SystemWorld.now(),
        );
        let keys = self.store.made_with_keys().await?;
        keys.create_key(record.clone()).await?;
        let (name, account, may) = (&self.name, &self.account, words.join(" "));
        let reach: String = reach(&record)
            .iter()
            .map(|note| format!("; {note}"))
            .collect();
        writeln!(
            std::io::stderr(),
            "created key {name}: account {account}; scopes {may}{reach}"
        )?;
        writeln!(std::io::stderr(), "the key is shown only this once:")?;
        writeln!(std::io::stdout(), "{}", text.reveal())?;
        Ok(())
    }
}

/// Formats the time in UTC, to the second.
pub(crate) fn day(Timestamp(millis): Timestamp) -> String {
    jiff::Timestamp::from_millisecond(millis).map_or_else(
        |_| millis.to_string(),
        |moment| moment.strftime("%FT%TZ").to_string(),
    )
}

async fn list(keys: &dyn Keys, json: bool) -> anyhow::Result<()> {
    let (mut out, now) = (std::io::stdout(), SystemWorld.now());
    let keys = keys.list_keys().await?;
    if json {
        let keys: Vec<_> = keys.into_iter().map(view).collect();
        writeln!(out, "{}", serde_json::to_string(&keys)?)?;
        return Ok(());
    }
    for key in keys {
        writeln!(out, "{}", line(&key, now))?;
    }
    Ok(())
}

/// Formats a key as one line of the list.
fn line(key: &KeyRecord, now: Timestamp) -> String {
    let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let state = if key.revoked_at.is_some() {
        "revoked"
    } else if key.has_expired(now) {
        "expired"
    } else {
        "active"
    };
    let mut line = format!(
        "{}  {:<20}  account {:<12}  {:<20}  {state}  created {}",
        key.id,
        key.name,
        key.account,
        scopes.join(","),
        day(key.created_at)
    );
    let used = key.last_used_at.map_or_else(
        || "never used".to_owned(),
        |at| format!("last used {}", day(at)),
    );
    for note in reach(key).into_iter().chain([used]) {
        line += "  ";
        line += &note;
    }
    line
}

/// Describes the limits of a key that differ from the defaults, and its expiry date.
fn reach(key: &KeyRecord) -> Vec<String> {
    let serves = match &key.serve {
        _ if !key.scopes.contains(&Scope::Work) => None,
        Serve::All => Some("serves all accounts".to_owned()),
        Serve::Accounts(accounts) => {
            let others = accounts.iter().filter(|account| **account != key.account);
            let others: Vec<_> = others.map(ToString::to_string).collect();
            (!others.is_empty()).then(|| format!("also serves {}", others.join(",")))
        }
    };
    let models: Vec<_> = key.ceiling.models.iter().map(ToString::to_string).collect();
    let notes = [
        serves,
        (!models.is_empty()).then(|| format!("models {}", models.join(","))),
        key.ceiling
            .priority
            .map(|most| format!("priorities {} to 10", most.level())),
        key.expires_at.map(|at| format!("expires {}", day(at))),
    ];
    notes.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_lasts_as_long_as_is_written() {
        let hour = 60 * 60;
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 15 * 60),
            ("12h", 12 * hour),
            ("30d", 30 * 24 * hour),
            ("8w", 56 * 24 * hour),
        ] {
            assert_eq!(lasting(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in [
            "",
            "30",
            "d",
            "0s",
            "-1d",
            "1.5h",
            "1y",
            "30dd",
            "3żs",
            "99999999999999w",
        ] {
            assert!(lasting(wrong).is_err(), "{wrong}");
        }
        assert_eq!(priority("1").unwrap().level(), 1);
        assert!(priority("0").is_err() && priority("11").is_err());
    }

    #[test]
    fn a_listed_key_says_how_far_it_reaches_and_until_when() {
        let mut key = KeyRecord {
            id: "0123456789ab".into(),
            name: "laptop".into(),
            account: Account::new("home").unwrap(),
            scopes: [Scope::Enqueue, Scope::Read].into(),
            serve: Serve::All,
            ceiling: Ceiling::default(),
            secret_sha256: [0; 32],
            created_at: Timestamp(0),
            revoked_at: None,
            expires_at: None,
            last_used_at: None,
        };
        let plain = line(&key, Timestamp(0));
        assert!(
            plain.ends_with("active  created 1970-01-01T00:00:00Z  never used"),
            "{plain}"
        );
        key.ceiling.models = ModelPatterns::new(vec!["qwen*".parse().unwrap()]);
        key.ceiling.priority = Priority::new(7);
        key.expires_at = Some(Timestamp(60_000));
        key.last_used_at = Some(Timestamp(1000));
        let full = line(&key, Timestamp(60_000));
        assert!(
            full.ends_with(
                "expired  created 1970-01-01T00:00:00Z  models qwen*  priorities 7 to 10  \
                 expires 1970-01-01T00:01:00Z  last used 1970-01-01T00:00:01Z"
            ),
            "{full}"
        );
        key.scopes = [Scope::Work].into();
        assert!(line(&key, Timestamp(0)).contains("  serves all accounts  models"));
        key.serve = Serve::Accounts([key.account.clone()].into());
        assert!(!line(&key, Timestamp(0)).contains("serves"));
        let both = [key.account.clone(), Account::new("work").unwrap()];
        key.serve = Serve::Accounts(both.into());
        assert!(line(&key, Timestamp(0)).contains("  also serves work  "));
        key.revoked_at = Some(Timestamp(5));
        assert!(line(&key, Timestamp(60_000)).contains("  revoked  "));
    }

    #[test]
    fn a_work_key_serves_its_own_account_unless_more_is_said() {
        let account = |name: &str| Account::new(name).unwrap();
        let own = account("home");
        let serve = |names: &[&str]| {
            served(
                &own,
                &names
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(serve(&[]).unwrap(), Serve::Accounts([own.clone()].into()));
        assert_eq!(
            serve(&["work"]).unwrap(),
            Serve::Accounts([own.clone(), account("work")].into())
        );
        assert_eq!(serve(&["work", "all"]).unwrap(), Serve::All);
        assert!(serve(&["two words"]).is_err());
    }
}
