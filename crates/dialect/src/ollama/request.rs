//! Parsing of the routing fields of requests. As in Ollama, the last of duplicate keys counts, keys
//! match in any case, and anything after the first value is ignored.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail, ModelName, Op};
use serde::{
    Deserialize, Deserializer as _,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{go, json, refuse};

/// The routing fields of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Name of the model; `None` if absent or empty.
    pub model: Option<String>,
    /// Whether the answer is streamed as lines; the default is yes.
    pub stream: bool,
    /// Whether the request only loads or unloads the model and contains no prompt.
    pub loads: bool,
}

/// Parses the routing fields of a request and checks that it is one JSON object in UTF-8. The
/// engine checks everything else.
///
/// # Errors
/// `bad_request` or `malformed_json` in Ollama's words.
pub fn request_head(op: Op, body: &[u8]) -> Result<RequestHead, ErrorDetail> {
    let (type_name, question) = match op {
        Op::Chat => ("ChatRequest", Some("messages")),
        Op::Generate => ("GenerateRequest", Some("prompt")),
        Op::Embed => ("EmbedRequest", None),
        Op::Pull => ("PullRequest", None),
        Op::Copy => ("CopyRequest", None),
        Op::Delete => ("DeleteRequest", None),
        Op::Create => ("CreateRequest", None),
    };
    let mut model = None;
    let mut stream = true;
    let mut asks = question.is_none();
    fields(type_name, body, |key, value| {
        if is_named(key, "model") {
            read_text(type_name, "model", value, &mut model)?;
        } else if is_named(key, "stream") {
            stream = serde_json::from_str(value.get()).unwrap_or(true);
        } else if question.is_some_and(|question| is_named(key, question)) {
            // Engines differ in the spellings they accept. A prompt under any of them counts as
            // one; otherwise it would pass for a load and run beside the slots and ahead of the
            // queue.
            asks |= !is_empty(value.get());
        }
        Ok(())
    })?;
    Ok(RequestHead {
        model: model.filter(|model| !model.is_empty()),
        stream,
        loads: !asks,
    })
}

/// Whether an engine written in Go takes this key for that name: it ignores case, and treats `ſ` as
/// an s and the Kelvin sign as a k.
fn is_named(key: &str, name: &str) -> bool {
    let folded = || key.replace('ſ', "s").replace('\u{212a}', "k");
    key.eq_ignore_ascii_case(name) || (!key.is_ascii() && folded().eq_ignore_ascii_case(name))
}

fn is_empty(value: &str) -> bool {
    let inside = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
    value == "null" || value == "\"\"" || inside.is_some_and(|inside| inside.trim().is_empty())
}

/// Adds a model to a request that names none; everything else stays unchanged.
///
/// # Errors
/// `malformed_json` if the request is not an object.
pub fn with_model(body: &[u8], model: &ModelName) -> Result<Bytes, ErrorDetail> {
    let mut named = format!(r#"{{"model":"{model}""#);
    fields("Request", body, |key, value| {
        if !is_named(key, "model") {
            push(&mut named, key, value.get());
        }
        Ok(())
    })?;
    named.push('}');
    Ok(named.into())
}

fn push(object: &mut String, key: &str, value: &str) {
    object.push(',');
    object.push_str(&String::from_utf8_lossy(&json(&key)));
    object.push(':');
    object.push_str(value);
}

/// A request of the older `POST /api/embeddings`, answered by `embed`.
#[derive(Debug)]
pub struct EmbeddingsRequest<'a> {
    /// Name of the model; `None` if absent or empty.
    pub model: Option<String>,
    prompt: Option<&'a RawValue>,
    kept: Vec<(&'static str, &'a RawValue)>,
}

impl<'a> EmbeddingsRequest<'a> {
    /// Parses a request.
    ///
    /// # Errors
    /// `bad_request` or `malformed_json` in Ollama's words.
    pub fn parse(body: &'a [u8]) -> Result<Self, ErrorDetail> {
        const TYPE: &str = "EmbeddingRequest";
        let mut read = Self {
            model: None,
            prompt: None,
            kept: Vec::new(),
        };
        fields(TYPE, body, |key, value| {
            if is_named(key, "model") {
                return read_text(TYPE, "model", value, &mut read.model);
            }
            if is_named(key, "prompt") {
                read_text(TYPE, "prompt", value, &mut None)?;
                read.prompt = Some(value).filter(|value| value.get() != "null");
            }
            for name in ["options", "keep_alive"] {
                if is_named(key, name) {
                    read.kept.retain(|(kept, _)| *kept != name);
                    read.kept.push((name, value));
                }
            }
            Ok(())
        })?;
        read.model = read.model.filter(|model| !model.is_empty());
        Ok(read)
    }

    /// Returns the request as one for `embed`.
    #[must_use]
    pub fn native(&self, model: &str) -> Bytes {
        let mut request = format!("{{\"model\":{}", String::from_utf8_lossy(&json(&model)));
        push(
            &mut request,
            "input",
            self.prompt.map_or("\"\"", RawValue::get),
        );
        for (key, value) in &self.kept {
            push(&mut request, key, value.get());
        }
        request.push('}');
        request.into()
    }
}

/// Returns the model named by a request about models: `model`, or `name` from older clients. `None`
/// if it names none.
///
/// # Errors
/// `bad_request` or `malformed_json` in Ollama's words.
pub fn named_model(type_name: &str, body: &[u8]) -> Result<Option<String>, ErrorDetail> {
    let (mut model, mut name) = (None, None);
    fields(type_name, body, |key, value| {
        if is_named(key, "model") {
            read_text(type_name, "model", value, &mut model)
        } else if is_named(key, "name") {
            read_text(type_name, "name", value, &mut name)
        } else {
            Ok(())
        }
    })?;
    let said = |name: Option<String>| name.filter(|name| !name.is_empty());
    Ok(said(model).or_else(|| said(name)))
}

/// Routing fields of a request that changes an engine's models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeHead {
    /// The model that is pulled, deleted or created, or the source of a copy.
    pub model: ModelName,
    /// The base of a created model, or the destination of a copy.
    pub other: Option<String>,
    /// Whether the answer is streamed as lines; the default is yes.
    pub stream: bool,
    /// Whether it is created from files: uploaded before, or named by a path on the engine's
    /// machine, which older engines read.
    pub needs_files: bool,
}

/// Parses the routing fields of a change of models.
///
/// # Errors
/// `bad_request` or `malformed_json` in Ollama's words.
pub fn change_head(op: Op, body: &[u8]) -> Result<ChangeHead, ErrorDetail> {
    const FILES: [&str; 4] = ["files", "adapters", "modelfile", "path"];
    let (type_name, names, second): (_, &[&str], _) = match op {
        Op::Copy => ("CopyRequest", &["source"], Some("destination")),
        Op::Pull => ("PullRequest", &["name", "model"], None),
        Op::Delete => ("DeleteRequest", &["name", "model"], None),
        Op::Create => ("CreateRequest", &["name", "model"], Some("from")),
        Op::Chat | Op::Generate | Op::Embed => ("Request", &["model"], None),
    };
    let mut named: Vec<Option<String>> = vec![None; names.len()];
    let (mut other, mut stream, mut needs_files) = (None, true, false);
    fields(type_name, body, |key, value| {
        let name = names.iter().zip(&mut named);
        if let Some((name, into)) = name.into_iter().find(|(n, _)| is_named(key, n)) {
            read_text(type_name, name, value, into)?;
        } else if let Some(second) = second.filter(|second| is_named(key, second)) {
            read_text(type_name, second, value, &mut other)?;
        } else if is_named(key, "stream") {
            stream = serde_json::from_str(value.get()).unwrap_or(true);
        } else if FILES.iter().any(|name| is_named(key, name)) {
            needs_files |= op == Op::Create && !matches!(value.get(), "null" | "{}" | "\"\"");
        }
        Ok(())
    })?;
    // Older clients write `name` for `model`.
    let mut said = named.into_iter().rev().flatten();
    let name = said.find(|name| !name.is_empty()).unwrap_or_default();
    let invalid = || match op {
        Op::Copy => format!(
            "source {} is invalid",
            String::from_utf8_lossy(&json(&name))
        ),
        Op::Delete if name.is_empty() => "model is required".into(),
        Op::Pull | Op::Delete | Op::Create | Op::Chat | Op::Generate | Op::Embed => {
            "invalid model name".into()
        }
    };
    Ok(ChangeHead {
        model: ModelName::new(name.as_str())
            .map_err(|_| refuse(ErrorCode::BadRequest, invalid()))?,
        other: other.filter(|other| !other.is_empty()),
        stream,
        needs_files,
    })
}

/// Reads a text field; `null` leaves the value unchanged.
fn read_text(
    type_name: &str,
    field: &str,
    value: &RawValue,
    into: &mut Option<String>,
) -> Result<(), ErrorDetail> {
    if value.get() == "null" {
        return Ok(());
    }
    let text = serde_json::from_str(value.get()).map_err(|_| {
        let kind = go::kind(value.get());
        let message = format!(
            "json: cannot unmarshal {kind} into Go struct field {type_name}.{field} of type string"
        );
        refuse(ErrorCode::BadRequest, message)
    })?;
    *into = Some(text);
    Ok(())
}

/// Calls `each` for every field of the object in a body, with its value as written.
pub(super) fn fields<'a>(
    type_name: &str,
    body: &'a [u8],
    mut each: impl FnMut(&str, &'a RawValue) -> Result<(), ErrorDetail>,
) -> Result<(), ErrorDetail> {
    let missing = || refuse(ErrorCode::BadRequest, "missing request body");
    if body.is_empty() {
        return Err(missing());
    }
    let text = std::str::from_utf8(body).map_err(|_| {
        let message = "the body is not UTF-8; send JSON in UTF-8";
        refuse(ErrorCode::MalformedJson, message)
    })?;
    let broken =
        |error: &serde_json::Error| refuse(ErrorCode::MalformedJson, go::words(text, error));
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let whole = values.next().ok_or_else(missing)?;
    let whole = whole.map_err(|error| broken(&error))?.get();
    match go::kind(whole) {
        "null" => return Ok(()),
        "object" => {}
        kind => {
            let message =
                format!("json: cannot unmarshal {kind} into Go value of type api.{type_name}");
            return Err(refuse(ErrorCode::BadRequest, message));
        }
    }
    let mut refused = None;
    let read =
        serde_json::Deserializer::from_str(whole).deserialize_map(Each(|key: &str, value| {
            each(key, value)
                .map_err(|error| refused = Some(error))
                .is_ok()
        }));
    match refused {
        Some(refused) => Err(refused),
        None => read.map_err(|error| broken(&error)),
    }
}

/// Calls a function for each field of an object until it returns `false`.
struct Each<F>(F);

impl<'de, F: FnMut(&str, &'de RawValue) -> bool> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
        let mut goes_on = true;
        while let Some((Key(key), value)) = map.next_entry::<Key<'_>, &'de RawValue>()? {
            goes_on = goes_on && (self.0)(&key, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(op: Op, body: &str) -> RequestHead {
        request_head(op, body.as_bytes()).unwrap()
    }

    #[test]
    fn the_routing_fields_are_read_and_a_stream_is_the_default() {
        let read = head(Op::Chat, r#"{"model":"m","messages":[{"x":[1]}]}"#);
        assert_eq!((read.model.as_deref(), read.stream), (Some("m"), true));
        let read = head(Op::Chat, r#"{"stream":false,"model":""}"#);
        assert_eq!((read.model, read.stream), (None, false));
    }

    #[test]
    fn a_request_is_read_as_ollama_reads_it() {
        for body in [
            r#"{"model":"nosuch","model":"m"}"#,
            r#"{"Model":"m"}"#,
            r#"{"model":"m","MODEL":null}"#,
            r#"{"model":"m"} garbage"#,
            r#" {"model":"m","stream":"yes","options":7}"#,
        ] {
            let read = head(Op::Chat, body);
            assert_eq!(read.model.as_deref(), Some("m"), "{body}");
            assert!(read.stream, "{body}");
        }
        assert_eq!(head(Op::Chat, "null").model, None);
    }

    #[test]
    fn a_request_that_asks_nothing_only_loads() {
        for body in [
            "{}",
            r#"{"messages":null}"#,
            r#"{"messages":[ ]}"#,
            r#"{"prompt":"x"}"#,
        ] {
            assert!(head(Op::Chat, body).loads, "{body}");
        }
        for body in ["{}", r#"{"prompt":""}"#, r#"{"messages":[1]}"#] {
            assert!(head(Op::Generate, body).loads, "{body}");
        }
        assert!(!head(Op::Chat, r#"{"messages":[{}]}"#).loads);
        assert!(!head(Op::Chat, r#"{"messages":"hi"}"#).loads);
        assert!(!head(Op::Generate, r#"{"prompt":"x"}"#).loads);
        assert!(!head(Op::Embed, "{}").loads);
        for hidden in [
            r#"{"messages":[{}],"Messages":[]}"#,
            r#"{"MESSAGES":[{}],"messages":[]}"#,
            r#"{"messageſ":[{}]}"#,
        ] {
            assert!(!head(Op::Chat, hidden).loads, "{hidden}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_in_ollamas_words() {
        for (body, code, want) in [
            (&b""[..], ErrorCode::BadRequest, "missing request body"),
            (b"  ", ErrorCode::BadRequest, "missing request body"),
            (
                b"{\"model\":\"x\",",
                ErrorCode::MalformedJson,
                "unexpected EOF",
            ),
            (
                b"hello",
                ErrorCode::MalformedJson,
                "invalid character 'h' looking for beginning of value",
            ),
            (
                b"[]",
                ErrorCode::BadRequest,
                "json: cannot unmarshal array into Go value of type api.ChatRequest",
            ),
            (
                b"{\"model\":1}",
                ErrorCode::BadRequest,
                "json: cannot unmarshal number into Go struct field ChatRequest.model of type string",
            ),
            (
                b"{\"model\":\"\xff\"}",
                ErrorCode::MalformedJson,
                "the body is not UTF-8; send JSON in UTF-8",
            ),
        ] {
            let error = request_head(Op::Chat, body).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (code, want));
        }
    }

    #[test]
    fn a_body_nested_too_deeply_is_skipped_without_harm() {
        let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
        let deep = format!(r#"{{"model":"m","x":{open}{close}}}"#);
        assert_eq!(head(Op::Chat, &deep).model.as_deref(), Some("m"));
    }

    #[test]
    fn a_default_model_is_put_first_and_every_other_byte_stays() {
        let model = ModelName::new("m:1b").unwrap();
        let body = r#"{"stream": false,"model":"","n":1.50, "s\u00e9":[ 1 ]}"#;
        let named = with_model(body.as_bytes(), &model).unwrap();
        assert_eq!(
            named,
            r#"{"model":"m:1b","stream":false,"n":1.50,"sé":[ 1 ]}"#
        );
        assert!(with_model(b"[]", &model).is_err());
    }

    #[test]
    fn an_older_request_for_an_embedding_is_one_of_today() {
        let body =
            br#"{"model":"m","prompt":"a \u00e9 b","keep_alive":0,"zzz":1,"options":{ "x":1.0 }}"#;
        let read = EmbeddingsRequest::parse(body).unwrap();
        assert_eq!(read.model.as_deref(), Some("m"));
        assert_eq!(
            read.native("m"),
            r#"{"model":"m","input":"a \u00e9 b","keep_alive":0,"options":{ "x":1.0 }}"#
        );
        let read = EmbeddingsRequest::parse(b"{}").unwrap();
        assert_eq!(read.native("n"), r#"{"model":"n","input":""}"#);
        let error = EmbeddingsRequest::parse(br#"{"prompt":5}"#).unwrap_err();
        assert_eq!(
            error.message,
            "json: cannot unmarshal number into Go struct field EmbeddingRequest.prompt of type string"
        );
    }

    #[test]
    fn a_model_is_named_in_the_old_way_or_the_new() {
        let named = |body: &str| named_model("ShowRequest", body.as_bytes()).unwrap();
        assert_eq!(named(r#"{"model":"m","name":"n"}"#).as_deref(), Some("m"));
        assert_eq!(named(r#"{"model":"","name":"n"}"#).as_deref(), Some("n"));
        assert_eq!(named("{}"), None);
    }
}
