//! The bodies that clients of the query service send, JSON or form, parsed field by field with the
//! refusals they know.

use serde_json::{Map, Value};

use super::{Refusal, Status, Text};

/// Maximum number of characters of a question.
const QUESTION_MAX: usize = 2 * 1024 * 1024;
/// Maximum number of characters of an answer, which must fit into a line of a job's log.
const ANSWER_MAX: usize = 2 * 1024 * 1024;
/// Maximum number of characters of a log entry.
const LOG_MAX: usize = 64 * 1024;

const REQUIRED: &str = "This field is required.";
const NULL: &str = "This field may not be null.";
const BLANK: &str = "This field may not be blank.";
const NOT_TEXT: &str = "Not a valid string.";

/// The fields of a request.
#[derive(Clone, PartialEq)]
pub struct Fields(Map<String, Value>);

/// `POST /api/queries/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewQuery {
    /// Project number, not validated; stored with the query.
    pub project: i64,
    /// The question.
    pub query_text: Text,
}

/// `PATCH /api/queries/{id}/`. Other fields are accepted and ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// New status of the query.
    pub status: Option<Status>,
    /// The answer, or the error.
    pub answer_text: Option<Text>,
}

/// `POST /api/logs/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLog {
    /// Number of the query.
    pub query: u64,
    /// Text of the entry.
    pub log_data: Text,
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Fields {
    /// Parses a body according to its content type, JSON by default.
    ///
    /// # Errors
    /// A refusal with status 400 or 415.
    pub fn parse(content_type: Option<&str>, body: &[u8]) -> Result<Self, Refusal> {
        let kind = content_type.unwrap_or("application/json");
        let bare = kind.split(';').next().unwrap_or_default().trim();
        match bare.to_ascii_lowercase().as_str() {
            "application/json" => Self::of_json(body),
            // curl sends this content type for every body by default.
            "application/x-www-form-urlencoded" if body.trim_ascii_start().starts_with(b"{") => {
                Self::of_json(body)
            }
            "application/x-www-form-urlencoded" => Ok(Self::of_form(body)),
            _ => {
                let text = format!("Unsupported media type \"{kind}\" in request.");
                Err(Refusal::detail(415, &text))
            }
        }
    }

    fn of_json(body: &[u8]) -> Result<Self, Refusal> {
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        let read = serde_json::from_slice(body);
        match read.map_err(|error| Refusal::detail(400, &format!("JSON parse error - {error}")))? {
            Value::Object(fields) => Ok(Self(fields)),
            other @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)) => {
                let kind = python_type(&other);
                let why = format!("Invalid data. Expected a dictionary, but got {kind}.");
                Err(Refusal::fields([("non_field_errors", why)]))
            }
        }
    }

    fn of_form(body: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(body);
        let fields = pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into())));
        Self(fields.collect())
    }

    /// Returns a field if it is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// Returns the refresh token.
    ///
    /// # Errors
    /// A refusal with status 400, naming the field.
    pub fn refresh(&self) -> Result<&str, Refusal> {
        let text = self.filled("refresh");
        text.map_err(|why| Refusal::fields([("refresh", why)]))
    }

    /// Parses a new query.
    ///
    /// # Errors
    /// A refusal with status 400, naming the fields.
    pub fn new_query(&self) -> Result<NewQuery, Refusal> {
        let text = self.filled("query_text");
        let text = text.and_then(|text| short(text, QUESTION_MAX));
        match (self.number("project"), text) {
            (Ok(project), Ok(text)) => Ok(NewQuery {
                project,
                query_text: text.into(),
            }),
            (project, text) => Err(refused([
                ("project", project.err()),
                ("query_text", text.err()),
            ])),
        }
    }

    /// Parses a change of a query.
    ///
    /// # Errors
    /// A refusal with status 400, naming the fields.
    pub fn patch(&self) -> Result<Patch, Refusal> {
        let status = self.0.get("status").map(status).transpose();
        let answer = self.0.get("answer_text");
        let answer = answer.map(|text| bounded(text, ANSWER_MAX)).transpose();
        match (status, answer) {
            (Ok(status), Ok(answer)) => Ok(Patch {
                status,
                answer_text: answer.map(Text::from),
            }),
            (status, answer) => Err(refused([
                ("answer_text", answer.err()),
                ("status", status.err()),
            ])),
        }
    }

    /// Parses a new log entry.
    ///
    /// # Errors
    /// A refusal with status 400, naming the fields.
    pub fn new_log(&self) -> Result<NewLog, Refusal> {
        let text = self.filled("log_data");
        let text = text.and_then(|_| bounded(&self.0["log_data"], LOG_MAX));
        match (self.number("project"), self.number("query"), text) {
            (Ok(_), Ok(query), Ok(text)) => Ok(NewLog {
                query: u64::try_from(query).map_err(|_| Self::no_such("query", query))?,
                log_data: text.into(),
            }),
            (project, query, text) => Err(refused([
                ("project", project.err()),
                ("query", query.err()),
                ("log_data", text.err()),
            ])),
        }
    }

    /// Returns the refusal of a number that identifies nothing.
    #[must_use]
    pub fn no_such(field: &str, number: impl std::fmt::Display) -> Refusal {
        let why = format!("Invalid pk \"{number}\" - object does not exist.");
        Refusal::fields([(field, why)])
    }

    fn filled(&self, name: &str) -> Result<&str, String> {
        match self.0.get(name) {
            None => Err(REQUIRED.into()),
            Some(Value::Null) => Err(NULL.into()),
            Some(Value::String(text)) if text.trim().is_empty() => Err(BLANK.into()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(NOT_TEXT.into()),
        }
    }

    fn number(&self, name: &str) -> Result<i64, String> {
        let value = self.0.get(name).ok_or(REQUIRED)?;
        let number = match value {
            Value::Null => return Err(NULL.into()),
            Value::Number(number) => number.as_i64(),
            Value::String(text) if text.is_empty() => return Err(NULL.into()),
            Value::String(text) => text.trim().parse().ok(),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let kind = python_type(value);
        number.ok_or_else(|| format!("Incorrect type. Expected pk value, received {kind}."))
    }
}

fn refused<'a>(fields: impl IntoIterator<Item = (&'a str, Option<String>)>) -> Refusal {
    let wrong = fields.into_iter();
    Refusal::fields(wrong.filter_map(|(name, why)| Some((name, why?))))
}

fn status(value: &Value) -> Result<Status, String> {
    let word = match value {
        Value::Null => return Err(NULL.into()),
        Value::String(word) => word.clone(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            other.to_string()
        }
    };
    Status::parse(&word).ok_or_else(|| format!("\"{word}\" is not a valid choice."))
}

fn bounded(value: &Value, max: usize) -> Result<&str, String> {
    let text = match value {
        Value::String(text) => text,
        // The original service stores an empty text and null alike.
        Value::Null => "",
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            return Err(NOT_TEXT.into());
        }
    };
    short(text, max)
}

fn short(text: &str, max: usize) -> Result<&str, String> {
    if text.len() <= max || text.chars().count() <= max {
        Ok(text)
    } else {
        Err(format!(
            "Ensure this field has no more than {max} characters."
        ))
    }
}

fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}
