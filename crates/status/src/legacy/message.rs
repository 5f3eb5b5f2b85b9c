//! The messages of a client in the legacy mode.

use proto::{
    ErrorCode,
    status::{ClientMessage, Command, ServerMessage, v1::NAME_MAX},
};
use serde_json::Value;

/// Maximum length of an `id` that is echoed and of an unknown word that is quoted, in bytes.
const WORD_MAX: usize = 128;

/// A client's message.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    /// A known command.
    Command {
        command: Command,
        id: Option<String>,
        /// The client's own name; empty if it is not valid.
        name: String,
    },
    /// The `ping` command, which the hub answers itself with the time and the status number.
    Ping { id: Option<String> },
    /// A message that needs only this answer.
    Answer(ServerMessage),
}

/// Parses one text message. There is an answer to any text.
pub(crate) fn read(text: &str) -> Heard {
    let refuse = |code, message: String, command, id| {
        Heard::Answer(ServerMessage::Error {
            code,
            message,
            command,
            id,
            approval: None,
        })
    };
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            // The parser's error names a position, never the text itself.
            return refuse(
                ErrorCode::MalformedJson,
                format!("this is not JSON: {error}"),
                None,
                None,
            );
        }
    };
    let word = short(&value, "command");
    let id = short(&value, "id");
    if id.is_none() && value.get("id").is_some_and(|id| !id.is_null()) {
        let message = format!("`id` must be a string of at most {WORD_MAX} bytes");
        return refuse(ErrorCode::BadRequest, message, word, None);
    }
    match serde_json::from_value(value) {
        Ok(ClientMessage::Ping) => Heard::Answer(ServerMessage::Pong),
        Ok(ClientMessage::Command { args, name, .. }) => match word {
            None => {
                let message = format!("a command name may have at most {WORD_MAX} bytes");
                refuse(ErrorCode::UnknownCommand, message, None, id)
            }
            Some(word) if word == "ping" => Heard::Ping { id },
            Some(word) => match Command::parse(&word, &args) {
                Ok(command) => {
                    let is_name = name.len() <= NAME_MAX;
                    let name = if is_name { name } else { String::new() };
                    Heard::Command { command, id, name }
                }
                Err((code, message)) => refuse(code, message, Some(word), id),
            },
        },
        Ok(_) => refuse(
            ErrorCode::BadRequest,
            "unknown message type".into(),
            word,
            id,
        ),
        Err(_) => {
            let message =
                r#"a message is {"type":"command","command":…} or {"type":"ping"}"#.to_owned();
            refuse(ErrorCode::BadRequest, message, word, id)
        }
    }
}

fn short(value: &Value, name: &str) -> Option<String> {
    let text = value.get(name)?.as_str()?;
    (text.len() <= WORD_MAX).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(text: &str) -> ErrorCode {
        let Heard::Answer(ServerMessage::Error { code, .. }) = read(text) else {
            panic!("not an error: {text}")
        };
        code
    }

    #[test]
    fn a_command_is_heard_with_its_id() {
        let heard =
            read(r#"{"type":"command","command":"set_monitoring","args":{"on":false},"id":"7"}"#);
        let command = Command::SetMonitoring(false);
        assert_eq!(
            heard,
            Heard::Command {
                command,
                id: Some("7".into()),
                name: String::new(),
            }
        );
        assert_eq!(
            read(r#"{"type":"ping","x":1}"#),
            Heard::Answer(ServerMessage::Pong)
        );
    }

    #[test]
    fn the_command_ping_is_not_the_message_ping() {
        let heard = read(r#"{"type":"command","command":"ping","id":"7"}"#);
        assert_eq!(
            heard,
            Heard::Ping {
                id: Some("7".into())
            }
        );
    }

    #[test]
    fn each_fault_has_its_code() {
        use ErrorCode::{BadRequest, MalformedJson, UnknownCommand};
        for (text, expected) in [
            ("", MalformedJson),
            ("{", MalformedJson),
            (r#"{"type":"ping"}x"#, MalformedJson),
            ("[]", BadRequest),
            ("null", BadRequest),
            ("7", BadRequest),
            ("{}", BadRequest),
            (r#"{"type":7}"#, BadRequest),
            (r#"{"type":"status","data":{}}"#, BadRequest),
            (r#"{"type":"command"}"#, BadRequest),
            (r#"{"type":"command","command":7}"#, BadRequest),
            (r#"{"type":"command","command":"cancel_job"}"#, BadRequest),
            (
                r#"{"type":"command","command":"set_volume","args":{"volume":101}}"#,
                BadRequest,
            ),
            (
                r#"{"type":"command","command":"set_volume","args":{"volume":"loud"}}"#,
                BadRequest,
            ),
            (
                r#"{"type":"command","command":"cancel_job","args":{"job":"x"}}"#,
                BadRequest,
            ),
            (
                r#"{"type":"command","command":"toggle_monitoring","id":7}"#,
                BadRequest,
            ),
            (
                r#"{"type":"command","command":"self_destruct"}"#,
                UnknownCommand,
            ),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
        assert_eq!(code(&"[".repeat(60_000)), MalformedJson);
        let long = format!(r#"{{"type":"command","command":"{}"}}"#, "x".repeat(60_000));
        assert_eq!(code(&long), UnknownCommand);
    }

    #[test]
    fn an_error_gives_the_id_and_the_word_back() {
        let Heard::Answer(ServerMessage::Error { command, id, .. }) =
            read(r#"{"type":"command","command":"dance","id":"a"}"#)
        else {
            panic!("not an error")
        };
        assert_eq!(
            (command.as_deref(), id.as_deref()),
            (Some("dance"), Some("a"))
        );
    }

    proptest! {
        /// No text panics, and no answer is longer than a few hundred bytes.
        #[test]
        fn anything_is_answered_shortly(text in any_message()) {
            if let Heard::Answer(answer) = read(&text) {
                prop_assert!(serde_json::to_string(&answer).unwrap().len() < 3_000);
            }
        }
    }

    fn any_message() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            Just("toggle_monitoring".to_owned()),
            Just("ping".to_owned()),
            Just("command".to_owned()),
            Just("cancel_job".to_owned()),
            "\\PC{0,300}",
        ];
        let built = (
            word.clone(),
            word.clone(),
            "\\PC{0,20}",
            any::<Option<i64>>(),
        )
            .prop_map(|(kind, command, id, on)| {
                let args =
                    on.map_or_else(|| "{}".to_owned(), |n| format!(r#"{{"on":{n},"job":{n}}}"#));
                format!(r#"{{"type":{kind:?},"command":{command:?},"id":{id:?},"args":{args}}}"#)
            });
        let cut = (built.clone(), any::<prop::sample::Index>()).prop_map(|(text, at)| {
            text.chars()
                .take(at.index(text.chars().count() + 1))
                .collect::<String>()
        });
        prop_oneof![built, cut, any::<String>()]
    }
}
