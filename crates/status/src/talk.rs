//! The messages of a client of `hearth.status.v1` after its handshake.

use proto::{
    ErrorCode,
    status::{
        Command, CommandArgs,
        v1::{HubMessage, ID_MAX, PeerMessage, Published, SUBSCRIPTIONS_MAX, TEXT_MAX, Topic},
    },
};
use serde_json::Value;

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
    let short = |name: &str| {
        let text = value.get(name)?.as_str()?;
        (text.len() <= ID_MAX && !text.is_empty()).then(|| text.to_owned())
    };
    let word = || (value["type"] == "publish").then(|| "publish".to_owned());
    let asker = short("id")
        .zip(word().or_else(|| short("request")))
        .map(|(id, request)| Asker {
            id,
            request,
            approval: None,
        });
    match (serde_json::from_value(value), asker) {
        (Ok(PeerMessage::Request { args, .. }), Some(asker)) => match asker.request.as_str() {
            "ping" => Heard::Ping(asker),
            "pairs" | "approve" | "deny" | "revoke" => match pairing(&asker.request, args) {
                Ok(pairing) => Heard::Pair(pairing, asker),
                Err(refused) => Heard::Refuse(asker.response(Err(refused))),
            },
            word => match Command::parse(word, &args) {
                Ok(command) => Heard::Command(command, asker),
                Err(refused) => Heard::Refuse(asker.response(Err(refused))),
            },
        },
        (Ok(PeerMessage::Request { .. }), None) => bad(format!(
            "`id` and `request` must be strings of 1 to {ID_MAX} bytes"
        )),
        (
            Ok(PeerMessage::Publish {
                fields, takeover, ..
            }),
            Some(asker),
        ) => {
            let text = fields.text.iter().flatten();
            if text.clone().any(|text| text.len() > TEXT_MAX) {
                let message = format!("a string may have at most {TEXT_MAX} bytes");
                return Heard::Refuse(asker.response(Err((ErrorCode::BadRequest, message))));
            }
            Heard::Publish {
                asker,
                fields,
                takeover,
            }
        }
        (Ok(PeerMessage::Publish { .. }), None) => {
            bad(format!("`id` must be a string of 1 to {ID_MAX} bytes"))
        }
        (
            Ok(PeerMessage::Response {
                id,
                status,
                message,
                ..
            }),
            _,
        ) => {
            let message: String = message.unwrap_or_default().chars().take(TEXT_MAX).collect();
            let answer = match status {
                200 => Ok(()),
                409 => Err((ErrorCode::NothingToDo, message)),
                _ => Err((ErrorCode::Internal, message)),
            };
            Heard::Response { id, answer }
        }
        (Ok(PeerMessage::Reidentify { subscriptions }), _) => {
            if subscriptions.len() > SUBSCRIPTIONS_MAX {
                return bad(format!(
                    "at most {SUBSCRIPTIONS_MAX} subscriptions are allowed"
                ));
            }
            Heard::Resubscribe(Topic::known(&subscriptions))
        }
        (Ok(PeerMessage::Identify { .. }), _) => {
            bad("this connection has identified already; use `reidentify`".into())
        }
        (Ok(_), _) => bad("unknown message type".into()),
        (Err(_), Some(asker)) => {
            let message = "the message does not have the fields and types of docs/PROTOCOL.md";
            let refused = (ErrorCode::BadRequest, message.to_owned());
            Heard::Refuse(asker.response(Err(refused)))
        }
        (Err(_), None) => bad(
            r#"a message is {"type":"request","id":…,"request":…} or {"type":"reidentify",…}"#
                .into(),
        ),
    }
}

fn pairing(word: &str, args: CommandArgs) -> Result<Pairing, (ErrorCode, String)> {
    let CommandArgs {
        approval,
        always,
        grant,
        ..
    } = args;
    let need = |named: Option<String>, what: &str| {
        let named = named.filter(|named| named.len() <= ID_MAX);
        named.ok_or_else(|| (ErrorCode::BadRequest, format!("{word} needs args.{what}")))
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
