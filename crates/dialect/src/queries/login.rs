//! The bodies of `POST /api/login/` and `POST /api/token/refresh/`.

use bytes::Bytes;
use proto::Timestamp;
use serde::Serialize;

use super::query::moment;
use crate::ollama::json;

/// The user who logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile<'a> {
    /// Number of the user.
    pub id: u64,
    /// Login name.
    pub username: &'a str,
    /// Number and name of the project that the user's queries belong to; `None` for service
    /// accounts.
    pub project: Option<(i64, &'a str)>,
    /// Whether this is the user's first login.
    pub first_login: bool,
    /// Time at which the user was created.
    pub date_joined: Timestamp,
    /// Time of the previous login.
    pub last_login: Option<Timestamp>,
}

/// The 200 response of `POST /api/login/`.
#[derive(Clone, PartialEq, Eq)]
pub struct LoggedIn<'a> {
    /// Access token, valid for a day.
    pub access: &'a str,
    /// Refresh token, valid for a week.
    pub refresh: &'a str,
    /// The user who logged in.
    pub user: Profile<'a>,
}

impl std::fmt::Debug for LoggedIn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoggedIn")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Returns the body for a successful login.
#[must_use]
pub fn logged_in(answer: &LoggedIn<'_>) -> Bytes {
    #[derive(Serialize)]
    struct Answer<'a> {
        access: &'a str,
        refresh: &'a str,
        user: User<'a>,
        first_login: bool,
    }
    #[derive(Serialize)]
    struct User<'a> {
        id: u64,
        username: &'a str,
        fio_name: &'a str,
        email: &'a str,
        project: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        project_name: Option<&'a str>,
        first_login: bool,
        is_active: bool,
        date_joined: String,
        last_login: Option<String>,
    }
    let user = &answer.user;
    json(&Answer {
        access: answer.access,
        refresh: answer.refresh,
        user: User {
            id: user.id,
            username: user.username,
            fio_name: user.username,
            email: "",
            project: user.project.map(|(id, _)| id),
            project_name: user.project.map(|(_, name)| name),
            first_login: user.first_login,
            is_active: true,
            date_joined: moment(user.date_joined),
            last_login: user.last_login.map(moment),
        },
        first_login: user.first_login,
    })
}

/// Returns the 200 body of `POST /api/token/refresh/`. The refresh token stays valid.
#[must_use]
pub fn refreshed(access: &str) -> Bytes {
    #[derive(Serialize)]
    struct Refreshed<'a> {
        access: &'a str,
    }
    json(&Refreshed { access })
}
