//! `hearth key`: makes, lists and revokes API keys in a relay's store, whether or not it runs.

use std::{collections::BTreeSet, io::Write as _, sync::Arc};

use clap::ValueEnum;
use proto::{Account, Timestamp};
use queue::{Keys, Scope, Serve};
use relay::{
    System, World as _,
    keys::{KeyFor, mint},
};

/// `hearth key create|list|revoke --store URL`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// Make a key and print it, once: it is the last word printed.
    Create(Create),
    /// List the keys, without their secrets.
    List {
        #[command(flatten)]
        store: Store,
    },
    /// Revoke a key; what it has open is closed within seconds.
    Revoke {
        #[command(flatten)]
        store: Store,
        /// The key's name or id.
        #[arg(value_name = "NAME")]
        key: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Store {
    /// Where the relay keeps its jobs and keys: sqlite:PATH.
    #[arg(long, env = "HEARTH_STORE", value_name = "URL")]
    store: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    store: Store,
    /// What you call it; the owner of the agent sees it as "who".
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What it may do; several are allowed.
    #[arg(long = "scope", value_enum, required = true, value_name = "SCOPE")]
    scopes: Vec<KeyScope>,
    /// Whose jobs it submits and reads.
    #[arg(long, default_value = "default", value_name = "ACCOUNT")]
    account: Account,
    /// Whose jobs a work key may lease, beside its own account's: an account, or `all`.
    #[arg(long, value_name = "ACCOUNT")]
    serve: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeyScope {
    /// Submit and cancel jobs.
    Enqueue,
    /// Read jobs, answers and models.
    Read,
    /// Lease and answer jobs: what an agent needs.
    Work,
    /// Everything else.
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
    /// Does it.
    ///
    /// # Errors
    /// If the store cannot be opened or written, or the name is taken or unknown.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run().await,
            Self::List { store } => list(&*store.open().await?).await,
            Self::Revoke { store, key } => {
                let revoked = store.open().await?.revoke_key(System.now(), &key).await?;
                anyhow::ensure!(
                    revoked,
                    "no key that is in force has the name or id {key:?}"
                );
                writeln!(std::io::stdout(), "revoked {key}")?;
                Ok(())
            }
        }
    }
}

impl Store {
    async fn open(&self) -> anyhow::Result<Arc<dyn Keys>> {
        Ok(relay::open_keys(&self.store).await?)
    }
}

impl Create {
    async fn run(self) -> anyhow::Result<()> {
        anyhow::ensure!(
            (1..=64).contains(&self.name.chars().count())
                && !self.name.chars().any(char::is_control),
            "a key's name has 1 to 64 printable characters"
        );
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
        };
        let [a, b, c, d, e, f, ..] = System.random()?;
        let (text, record) = mint(for_, [a, b, c, d, e, f], System.random()?, System.now());
        self.store.open().await?.create_key(record).await?;
        let (name, account, may) = (&self.name, &self.account, words.join(" "));
        writeln!(
            std::io::stderr(),
            "key {name} of account {account} may: {may}"
        )?;
        writeln!(std::io::stderr(), "it is shown only this once:")?;
        writeln!(std::io::stdout(), "{}", text.reveal())?;
        Ok(())
    }
}

/// Whose jobs the key may lease: its own account's, those of the others named, or everybody's.
fn served(own: &Account, others: &[String]) -> anyhow::Result<Serve> {
    if others.iter().any(|name| name == "all") {
        return Ok(Serve::All);
    }
    let mut accounts = BTreeSet::from([own.clone()]);
    for other in others {
        accounts.insert(other.parse()?);
    }
    Ok(Serve::Accounts(accounts))
}

/// The moment in UTC, to the second.
pub(crate) fn day(Timestamp(millis): Timestamp) -> String {
    jiff::Timestamp::from_millisecond(millis).map_or_else(
        |_| millis.to_string(),
        |moment| moment.strftime("%FT%TZ").to_string(),
    )
}

async fn list(keys: &dyn Keys) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    for key in keys.list_keys().await? {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let state = if key.revoked_at.is_some() {
            "revoked"
        } else {
            "in force"
        };
        let made = day(key.created_at);
        writeln!(
            out,
            "{}  {:<20}  account {:<12}  {:<20}  {state}  made {made}",
            key.id,
            key.name,
            key.account,
            scopes.join(",")
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
