//! `hearth.status.v1`: a handshake, then statuses by subscription, commands and publishers.

mod greeting;
pub(crate) mod message;
mod session;

pub(crate) use self::{
    greeting::{Greeting, Handshake},
    session::Session,
};
