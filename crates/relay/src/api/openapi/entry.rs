//! Description of one route in the OpenAPI document.

use serde_json::{Value, json};

/// One method of a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) access: Access,
    pub(super) params: &'static [Param],
    pub(super) takes: Content,
    pub(super) gives: Content,
    pub(super) status: u16,
    /// Documentation of the wire format, if another project defines it.
    pub(super) docs: Option<&'static str>,
    pub(super) may_say_nothing: bool,
}

/// Credentials that a route needs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    Anyone,
    /// A key with this scope.
    Key(&'static str),
}

/// Body of a request or response.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    Nothing,
    /// An object of the named schema.
    Native(&'static str),
    /// A list of objects of the named schema.
    Natives(&'static str),
    /// Any JSON object.
    Object,
    /// A JSON object, or a stream of this media type.
    Streamed(&'static str),
    /// Bytes of this media type.
    Bytes(&'static str),
}

/// A parameter outside the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Param {
    pub(super) name: &'static str,
    /// `query` or `header`.
    pub(super) place: &'static str,
    pub(super) says: &'static str,
    /// A named schema, or a JSON type.
    pub(super) is: Is,
}

/// Type of a parameter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Is {
    Schema(&'static str),
    Type(&'static str),
}

impl Entry {
    pub(super) const fn get(path: &'static str, summary: &'static str) -> Self {
        Self {
            method: "get",
            path,
            summary,
            access: Access::Anyone,
            params: &[],
            takes: Content::Nothing,
            gives: Content::Object,
            status: 200,
            docs: None,
            may_say_nothing: false,
        }
    }

    pub(super) const fn post(path: &'static str, summary: &'static str) -> Self {
        Self {
            method: "post",
            takes: Content::Object,
            ..Self::get(path, summary)
        }
    }

    pub(super) const fn patch(path: &'static str, summary: &'static str) -> Self {
        Self {
            method: "patch",
            ..Self::post(path, summary)
        }
    }

    pub(super) const fn delete(path: &'static str, summary: &'static str) -> Self {
        Self {
            method: "delete",
            ..Self::get(path, summary)
        }
    }

    pub(super) const fn key(mut self, scope: &'static str) -> Self {
        self.access = Access::Key(scope);
        self
    }

    pub(super) const fn params(mut self, params: &'static [Param]) -> Self {
        self.params = params;
        self
    }

    pub(super) const fn takes(mut self, takes: Content) -> Self {
        self.takes = takes;
        self
    }

    pub(super) const fn gives(mut self, status: u16, gives: Content) -> Self {
        self.status = status;
        self.gives = gives;
        self
    }

    /// Declares that the route may answer 204.
    pub(super) const fn or_nothing(mut self) -> Self {
        self.may_say_nothing = true;
        self
    }

    pub(super) const fn docs(mut self, url: &'static str) -> Self {
        self.docs = Some(url);
        self
    }

    /// Returns the operation's id, which names it in generated clients: `get_api_jobs_id`.
    pub(super) fn name(&self) -> String {
        let words = self.path.split(|c: char| !c.is_ascii_alphanumeric());
        let words = words.filter(|word| !word.is_empty());
        // Some paths are served with and without a trailing slash.
        let slash = self.path.len() > 1 && self.path.ends_with('/');
        let last = slash.then_some("slash");
        std::iter::once(self.method)
            .chain(words)
            .chain(last)
            .collect::<Vec<_>>()
            .join("_")
    }

    /// Returns the group that the route is listed in.
    pub(super) fn tag(&self) -> &'static str {
        let tags = [
            ("/api/admin", "operators"),
            ("/api/jobs", "jobs"),
            ("/api/worker", "workers"),
            ("/api/ollama", "polling relay"),
            ("/api/v1/ollama", "polling relay"),
            ("/api/bridge", "tunnel service"),
            ("/ws/tunnel", "tunnel service"),
            ("/api/sessions", "users"),
            ("/api/login", "queries"),
            ("/api/token", "queries"),
            ("/api/queries", "queries"),
            ("/api/logs", "queries"),
            ("/v1/files", "batches"),
            ("/v1/batches", "batches"),
            ("/v1/messages", "Anthropic"),
            ("/v1", "OpenAI"),
        ];
        let tag = tags.iter().find(|(start, _)| self.path.starts_with(start));
        match tag {
            Some((_, tag)) => tag,
            None if self.docs.is_some() => "Ollama",
            None => "relay",
        }
    }
}

impl Content {
    /// Returns the `content` of a body, if there is one.
    pub(super) fn json(self) -> Option<Value> {
        let named = |name| json!({"$ref": format!("#/components/schemas/{name}")});
        let object = json!({"schema": {"type": "object"}});
        Some(match self {
            Self::Nothing => return None,
            Self::Native(name) => json!({"application/json": {"schema": named(name)}}),
            Self::Natives(name) => {
                let list = json!({"type": "array", "items": named(name)});
                json!({"application/json": {"schema": list}})
            }
            Self::Object => json!({"application/json": object}),
            Self::Streamed(media) => {
                json!({"application/json": object, media: {"schema": {"type": "string"}}})
            }
            Self::Bytes(media) => json!({media: {}}),
        })
    }

    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::Nothing => "Success, without a body.",
            Self::Native(_) | Self::Object | Self::Bytes(_) => "Success.",
            Self::Natives(_) => "A list, newest first.",
            Self::Streamed(_) => "One object, or a stream if the request asks for one.",
        }
    }
}

impl Param {
    pub(super) const fn query(name: &'static str, is: Is, says: &'static str) -> Self {
        Self {
            name,
            place: "query",
            says,
            is,
        }
    }

    pub(super) const fn header(name: &'static str, is: Is, says: &'static str) -> Self {
        Self {
            name,
            place: "header",
            says,
            is,
        }
    }

    pub(super) fn json(&self) -> Value {
        let schema = match self.is {
            Is::Schema(name) => json!({"$ref": format!("#/components/schemas/{name}")}),
            Is::Type(name) => json!({"type": name}),
        };
        json!({
            "name": self.name,
            "in": self.place,
            "description": self.says,
            "schema": schema,
        })
    }
}
