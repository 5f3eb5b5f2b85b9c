//! The query service's HTTP interface: login, queries that workers claim, and their logs. Its
//! clients decide on status, `code` and field names; the words are those they are used to.

mod fields;
mod login;
mod query;
mod refusal;
#[cfg(test)]
mod tests;
mod text;

pub use fields::{Fields, NewLog, NewQuery, Patch};
pub use login::{LoggedIn, Profile, logged_in, refreshed};
pub use query::{Log, Page, Query, Status, log, logs, native, page, queries, query, text_of};
pub use refusal::{Refusal, Why};
pub use text::Text;
