//! `hearth user`: creates, lists, changes and removes users with a password in a relay's store,
//! whether or not the relay is running.

use std::io::{Read as _, Write as _};

use clap::ValueEnum;
use proto::Account;
use queue::{Role, User, UserChange, Users};
use relay::{SystemWorld, World as _, users};
use secrecy::SecretString;
use serde_json::json;

use crate::{key::day, store::Store};

/// Maximum length of the password on standard input, in bytes with its line end; the relay's own
/// rules are stricter.
const INPUT_MAX: u64 = 4096;

/// `hearth user create|list|password|logout|remove`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// Create a user; the password is read from standard input.
    Create(Create),
    /// List the users.
    List {
        #[command(flatten)]
        store: Store,
        /// Print a JSON array; times are milliseconds since 1970.
        #[arg(long)]
        json: bool,
    },
    /// Change a user's password; all of the user's tokens become invalid at once.
    Password {
        #[command(flatten)]
        store: Store,
        #[command(flatten)]
        password: FromInput,
        /// The user's name.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Invalidate all tokens of a user, or of all users with --all; they may log in again.
    Logout(LogOut),
    /// Remove a user; all of the user's tokens become invalid at once.
    Remove {
        #[command(flatten)]
        store: Store,
        /// The user's name.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct FromInput {
    /// Read the password from standard input, as one line. A password on the command line would be
    /// visible to other users of this machine.
    #[arg(long, required = true)]
    password_stdin: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogOut {
    #[command(flatten)]
    store: Store,
    /// Log out all users, and replace the secret that signs their tokens. Do this if somebody may
    /// have a copy of the store, which would let them sign tokens for any user.
    #[arg(long, conflicts_with = "name")]
    all: bool,
    /// The user's name.
    #[arg(value_name = "NAME", required_unless_present = "all")]
    name: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    store: Store,
    #[command(flatten)]
    password: FromInput,
    /// The name that the user logs in with.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What the user may do.
    #[arg(long, value_enum, default_value = "user", value_name = "ROLE")]
    role: UserRole,
    /// The account whose jobs the user submits, reads and, with the role `service`, answers.
    #[arg(long, default_value = "default", value_name = "ACCOUNT")]
    account: Account,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum UserRole {
    /// Submit and read jobs.
    User,
    /// Also answer jobs: what a worker service needs.
    Service,
    /// Everything, in every account.
    Admin,
}

impl From<UserRole> for Role {
    fn from(role: UserRole) -> Self {
        match role {
            UserRole::User => Self::User,
            UserRole::Service => Self::Service,
            UserRole::Admin => Self::Admin,
        }
    }
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// If the store cannot be opened or written, the name is taken or unknown, or the password is
    /// too short.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let (store, name, change, did) = match self {
            Self::Create(create) => return create.run().await,
            Self::List { store, json } => return list(&*store.users().await?, json).await,
            Self::Remove { store, name } => {
                let removed = store.users().await?.remove_user(&name).await?;
                return said(removed, &name, "removed");
            }
            Self::Password {
                store,
                password,
                name,
            } => {
                let hash = users::hash(&password.read()?, SystemWorld.random()?)?;
                (
                    store,
                    name,
                    UserChange::Password(hash),
                    "changed the password of",
                )
            }
            Self::Logout(LogOut { store, all, name }) => match name {
                Some(name) if !all => (store, name, UserChange::LogOut, "logged out"),
                _ => return log_out_all(&*store.users().await?).await,
            },
        };
        let changed = store.users().await?.change_user(&name, change).await?;
        said(changed, &name, did)
    }
}

async fn log_out_all(users: &dyn Users) -> anyhow::Result<()> {
    let count = users.log_out_all(SystemWorld.random()?).await?;
    writeln!(
        std::io::stdout(),
        "logged out all users ({count}) and replaced the secret that signs their tokens"
    )?;
    Ok(())
}

fn said(done: bool, name: &str, did: &str) -> anyhow::Result<()> {
    anyhow::ensure!(done, "there is no user named {name:?}");
    writeln!(std::io::stdout(), "{did} {name}")?;
    Ok(())
}

impl FromInput {
    /// Reads one line of standard input. Only the line end is stripped.
    fn read(&self) -> anyhow::Result<SecretString> {
        anyhow::ensure!(self.password_stdin, "--password-stdin is required");
        let mut text = String::new();
        std::io::stdin().take(INPUT_MAX).read_to_string(&mut text)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        anyhow::ensure!(
            !line.contains('\n'),
            "standard input has more than one line; pass only the password"
        );
        Ok(line.to_owned().into())
    }
}

impl Create {
    async fn run(self) -> anyhow::Result<()> {
        let password = self.password.read()?;
        let (role, salt, now) = (self.role.into(), SystemWorld.random()?, SystemWorld.now());
        let user = users::user(
            self.name.clone(),
            self.account.clone(),
            role,
            &password,
            salt,
            now,
        )?;
        let id = self
            .store
            .made_with_users()
            .await?
            .create_user(user)
            .await?;
        let (name, account, role) = (&self.name, &self.account, role.as_str());
        writeln!(
            std::io::stdout(),
            "created user {name}: id {id}; role {role}; account {account}"
        )?;
        Ok(())
    }
}

async fn list(users: &dyn Users, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let users = users.list_users().await?;
    if json {
        let users: Vec<_> = users.iter().map(shown).collect();
        writeln!(out, "{}", serde_json::Value::from(users))?;
        return Ok(());
    }
    for user in users {
        let seen = user.last_login.map_or_else(|| "never".to_owned(), day);
        writeln!(
            out,
            "{:>4}  {:<20}  {:<7}  account {:<12}  created {}  last login {seen}",
            user.id,
            user.new.name,
            user.new.role.as_str(),
            user.new.account,
            day(user.new.created_at)
        )?;
    }
    Ok(())
}

/// All of a user but the password.
fn shown(user: &User) -> serde_json::Value {
    json!({
        "id": user.id,
        "name": user.new.name,
        "role": user.new.role,
        "account": user.new.account,
        "created_at": user.new.created_at,
        "last_login_at": user.last_login,
    })
}
