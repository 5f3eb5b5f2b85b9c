//! The legacy mode, without a handshake: whole statuses out, commands in.

pub(crate) mod message;
mod session;

pub(crate) use self::session::Session;
