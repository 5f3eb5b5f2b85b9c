//! The query service's HTTP interface: login, queries that workers claim, and their logs. Its
//! clients depend on the statuses, the `code` values and the field names; messages are the original
//! ones.

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
