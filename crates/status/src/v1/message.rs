//! The messages of a client of `hearth.status.v1` after its handshake.

use proto::{
    ErrorCode,
    status::{
        Command, CommandArgs,
        v1::{HubMessage, ID_MAX, PeerMessage, Published, SUBSCRIPTIONS_MAX, TEXT_MAX, Topic},
    },
};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::{Answer, Consent, asking::Outcome};

/// The request that an answer belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) id: String,
    pub(crate) request: String,
    /// The approval that the request needed.
    pub(crate) approval: Option<String>,
}

/// Requests that only the owner's own programs may make.
#[derive(Debug, PartialEq)]
pub(crate) enum Pairing {
    List,
    Approve { approval: String, consent: Consent },
    Deny { approval: String },
    Revoke { grant: String },
}

/// A client's message.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Command(Command, Asker),
    Ping(Asker),
    Pair(Pairing, Asker),
    Resubscribe(Vec<Topic>),
    Publish {
        asker: Asker,
        fields: Published,
        takeover: bool,
    },
    Response {
        id: String,
        answer: Answer,
    },
    /// A message that is only refused, with this answer.
    Refuse(HubMessage),
    /// The library has queued its own answer, which only has to be flushed.
    Flush,
    /// A message without an answer.
    Nothing,
}

impl Heard {
    /// Whether this is the answer to a command, or no message of the protocol; those are never
    /// deferred.
    pub(crate) const fn is_answer(&self) -> bool {
        matches!(self, Self::Response { .. } | Self::Flush | Self::Nothing)
    }
}

/// Parses one message. There is an answer to any.
pub(crate) fn read_message(message: &Message) -> Heard {
    match message {
        Message::Text(text) => read(text),
        Message::Binary(_) => bad("messages must be text, not binary".into()),
        Message::Ping(_) | Message::Close(_) => Heard::Flush,
        Message::Pong(_) | Message::Frame(_) => Heard::Nothing,
    }
}

/// Parses one text message. There is an answer to any text.
pub(crate) fn read(text: &str) -> Heard {
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            // The parser's error names a position, never the text itself.
            let message = format!("this is not JSON: {error}");
            return Heard::Refuse(refused(ErrorCode::MalformedJson, message));
        }
    };
    let asker = asker(&value);
    match serde_json::from_value(value) {
        Ok(PeerMessage::Request { args, .. }) => request(&args, asker),
        Ok(PeerMessage::Publish {
            fields, takeover, ..
        }) => publish(fields, takeover, asker),
        Ok(PeerMessage::Response {
            id,
            status,
            message,
            ..
        }) => response(id, status, message),
        Ok(PeerMessage::Reidentify { subscriptions }) => resubscribe(&subscriptions),
        Ok(PeerMessage::Identify { .. }) => {
            bad("this connection has identified already; use `reidentify`".into())
        }
        Ok(_) => bad("unknown message type".into()),
        Err(_) => misshapen(asker),
    }
}

/// The request in a message, if it has one that can be answered.
fn asker(value: &Value) -> Option<Asker> {
    let short = |name: &str| {
        let text = value.get(name)?.as_str()?;
        (text.len() <= ID_MAX && !text.is_empty()).then(|| text.to_owned())
    };
    let request = if value["type"] == "publish" {
        "publish".to_owned()
    } else {
        short("request")?
    };
    Some(Asker {
        id: short("id")?,
        request,
        approval: None,
    })
}

fn request(args: &CommandArgs, asker: Option<Asker>) -> Heard {
    let Some(asker) = asker else {
        return bad(format!(
            "`id` and `request` must be strings of 1 to {ID_MAX} bytes"
        ));
    };
    match asker.request.as_str() {
        "ping" => Heard::Ping(asker),
        "pairs" | "approve" | "deny" | "revoke" => match pairing(&asker.request, args) {
            Ok(pairing) => Heard::Pair(pairing, asker),
            Err(refused) => Heard::Refuse(asker.response(Err(refused))),
        },
        word => match Command::parse(word, args) {
            Ok(command) => Heard::Command(command, asker),
            Err(refused) => Heard::Refuse(asker.response(Err(refused))),
        },
    }
}

fn publish(fields: Published, takeover: bool, asker: Option<Asker>) -> Heard {
    let Some(asker) = asker else {
        return bad(format!("`id` must be a string of 1 to {ID_MAX} bytes"));
    };
    let mut texts = fields.text.iter().flatten();
    if texts.any(|text| text.len() > TEXT_MAX) {
        let message = format!("a string may have at most {TEXT_MAX} bytes");
        return Heard::Refuse(asker.response(Err((ErrorCode::BadRequest, message))));
    }
    Heard::Publish {
        asker,
        fields,
        takeover,
    }
}

fn response(id: String, status: u16, message: Option<String>) -> Heard {
    let message: String = message.unwrap_or_default().chars().take(TEXT_MAX).collect();
    let answer = match status {
        200 => Ok(()),
        409 => Err((ErrorCode::NothingToDo, message)),
        _ => Err((ErrorCode::Internal, message)),
    };
    Heard::Response { id, answer }
}

fn resubscribe(subscriptions: &[String]) -> Heard {
    if subscriptions.len() > SUBSCRIPTIONS_MAX {
        return bad(format!(
            "at most {SUBSCRIPTIONS_MAX} subscriptions are allowed"
        ));
    }
    Heard::Resubscribe(Topic::known(subscriptions))
}

/// Refuses a message with wrong fields, as the answer to its request if it has one.
fn misshapen(asker: Option<Asker>) -> Heard {
    let Some(asker) = asker else {
        return bad(
            r#"a message is {"type":"request","id":…,"request":…} or {"type":"reidentify",…}"#
                .into(),
        );
    };
    let message = "the message does not have the fields and types of docs/PROTOCOL.md";
    let refused = (ErrorCode::BadRequest, message.to_owned());
    Heard::Refuse(asker.response(Err(refused)))
}

fn pairing(word: &str, args: &CommandArgs) -> Result<Pairing, (ErrorCode, String)> {
    let CommandArgs {
        approval,
        always,
        grant,
        ..
    } = args;
    let need = |named: &Option<String>, what: &str| {
        let named = named.as_ref().filter(|named| named.len() <= ID_MAX);
        named
            .cloned()
            .ok_or_else(|| (ErrorCode::BadRequest, format!("{word} needs args.{what}")))
    };
    Ok(match word {
        "approve" => Pairing::Approve {
            approval: need(approval, "approval")?,
            consent: if always.unwrap_or(false) {
                Consent::Always
            } else {
                Consent::Once
            },
        },
        "deny" => Pairing::Deny {
            approval: need(approval, "approval")?,
        },
        "revoke" => Pairing::Revoke {
            grant: need(grant, "grant")?,
        },
        _ => Pairing::List,
    })
}

fn bad(message: String) -> Heard {
    Heard::Refuse(refused(ErrorCode::BadRequest, message))
}

/// The answer to a message that is not a valid request.
pub(crate) fn refused(code: ErrorCode, message: String) -> HubMessage {
    HubMessage::Error {
        status: code.http_status(),
        code,
        message,
    }
}

impl Asker {
    /// The answer with the outcome of the request.
    pub(crate) fn response(self, answer: Answer) -> HubMessage {
        let (status, code, message) = match answer {
            Ok(()) => (200, None, None),
            Err((code, message)) => (code.http_status(), Some(code), Some(message)),
        };
        HubMessage::Response {
            id: self.id,
            request: self.request,
            status,
            code,
            message,
            result: None,
            approval: self.approval,
        }
    }

    /// The answer with the result of the request.
    pub(crate) fn result(self, result: Value) -> HubMessage {
        HubMessage::Response {
            id: self.id,
            request: self.request,
            status: 200,
            code: None,
            message: None,
            result: Some(result),
            approval: self.approval,
        }
    }
}

impl From<Outcome<Asker>> for HubMessage {
    fn from(outcome: Outcome<Asker>) -> Self {
        outcome.id.response(outcome.answer)
    }
}
