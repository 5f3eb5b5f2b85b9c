//! Users in the queue file, and the key that signs their tokens.

use async_trait::async_trait;
use proto::{Account, Timestamp};
use queue::{NewUser, PasswordHash, QueueError, User, UserChange, UserId, Users};
use rusqlite::{OptionalExtension, Row};

use crate::{
    SqliteKeys, SqliteQueue,
    row::{count, number, text, word, wrong},
};

const TOKEN_KEY: &str = "SELECT value FROM secrets WHERE name = 'token_key'";

/// A lookup reads one page from memory, which is not worth a thread; changes by other processes are
/// visible at once.
#[async_trait]
impl Users for SqliteKeys {
    async fn create_user(&self, user: NewUser) -> Result<UserId, QueueError> {
        self.change(move |conn| {
            let taken = conn
                .prepare("SELECT 1 FROM users WHERE name = ?1")?
                .exists([&user.name])?;
            if taken {
                return Err(QueueError::Exists(format!("a user named {}", user.name)).into());
            }
            let id = conn.query_row(
                "INSERT INTO users (name, account, role, password, generation, created_at)
                 VALUES (?1, ?2, ?3, ?4, 1, ?5) RETURNING id",
                (
                    &user.name,
                    user.account.as_str(),
                    text(&user.role)?,
                    &user.password.0,
                    user.created_at.0,
                ),
                |row| count(row, "id"),
            )?;
            Ok(id)
        })
        .await
    }

    async fn find_user(&self, id: UserId) -> Result<Option<User>, QueueError> {
        self.find(|conn| {
            let mut select = conn.prepare_cached("SELECT * FROM users WHERE id = ?1")?;
            select.query_row([number(id)], user).optional()
        })
    }

    async fn find_user_named(&self, name: &str) -> Result<Option<User>, QueueError> {
        self.find(|conn| {
            let mut select = conn.prepare_cached("SELECT * FROM users WHERE name = ?1")?;
            select.query_row([name], user).optional()
        })
    }

    async fn list_users(&self) -> Result<Vec<User>, QueueError> {
        let list = self.lists.read(|conn| {
            let mut select = conn.prepare("SELECT * FROM users ORDER BY id")?;
            select.query_map([], user)?.collect()
        });
        list.await
    }

    async fn remove_user(&self, name: &str) -> Result<bool, QueueError> {
        let name = name.to_owned();
        self.change(move |conn| Ok(conn.execute("DELETE FROM users WHERE name = ?1", [&name])? > 0))
            .await
    }

    async fn change_user(&self, name: &str, change: UserChange) -> Result<bool, QueueError> {
        let name = name.to_owned();
        let password = match change {
            UserChange::Password(PasswordHash(hash)) => Some(hash),
            UserChange::LogOut => None,
        };
        self.change(move |conn| {
            let changed = conn.execute(
                "UPDATE users SET generation = generation + 1, password = coalesce(?2, password)
                 WHERE name = ?1",
                (&name, &password),
            )?;
            Ok(changed > 0)
        })
        .await
    }

    async fn logged_in(&self, now: Timestamp, id: UserId) -> Result<(), QueueError> {
        self.change(move |conn| {
            conn.execute(
                "UPDATE users SET last_login = ?2 WHERE id = ?1",
                (number(id), now.0),
            )?;
            Ok(())
        })
        .await
    }

    async fn log_out_all(&self, token_key: [u8; 32]) -> Result<usize, QueueError> {
        self.change(move |conn| {
            conn.execute(
                "INSERT INTO secrets (name, value) VALUES ('token_key', ?1)
                 ON CONFLICT DO UPDATE SET value = excluded.value",
                [token_key],
            )?;
            conn.execute("DELETE FROM sessions", [])?;
            Ok(conn.execute("UPDATE users SET generation = generation + 1", [])?)
        })
        .await
    }

    async fn token_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], QueueError> {
        let had = self.find(|conn| {
            let mut select = conn.prepare_cached(TOKEN_KEY)?;
            select.query_row([], |row| row.get(0)).optional()
        })?;
        if let Some(key) = had {
            return Ok(key);
        }
        self.change(move |conn| {
            conn.execute(
                "INSERT INTO secrets (name, value) VALUES ('token_key', ?1) ON CONFLICT DO NOTHING",
                [fresh],
            )?;
            Ok(conn.query_row(TOKEN_KEY, [], |row| row.get(0))?)
        })
        .await
    }
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    let account: String = row.get("account")?;
    Ok(User {
        id: count(row, "id")?,
        new: NewUser {
            name: row.get("name")?,
            account: Account::new(account).map_err(|error| wrong("account", error))?,
            role: word(row, "role")?,
            password: PasswordHash(row.get("password")?),
            created_at: Timestamp(row.get("created_at")?),
        },
        generation: count(row, "generation")?,
        last_login: row.get::<_, Option<i64>>("last_login")?.map(Timestamp),
    })
}

#[async_trait]
impl Users for SqliteQueue {
    async fn create_user(&self, user: NewUser) -> Result<UserId, QueueError> {
        self.keys.create_user(user).await
    }

    async fn find_user(&self, id: UserId) -> Result<Option<User>, QueueError> {
        self.keys.find_user(id).await
    }

    async fn find_user_named(&self, name: &str) -> Result<Option<User>, QueueError> {
        self.keys.find_user_named(name).await
    }

    async fn list_users(&self) -> Result<Vec<User>, QueueError> {
        self.keys.list_users().await
    }

    async fn remove_user(&self, name: &str) -> Result<bool, QueueError> {
        self.keys.remove_user(name).await
    }

    async fn change_user(&self, name: &str, change: UserChange) -> Result<bool, QueueError> {
        self.keys.change_user(name, change).await
    }

    async fn logged_in(&self, now: Timestamp, id: UserId) -> Result<(), QueueError> {
        self.keys.logged_in(now, id).await
    }

    async fn log_out_all(&self, token_key: [u8; 32]) -> Result<usize, QueueError> {
        self.keys.log_out_all(token_key).await
    }

    async fn token_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], QueueError> {
        self.keys.token_key(fresh).await
    }
}
