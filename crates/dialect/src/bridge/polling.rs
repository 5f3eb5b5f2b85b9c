//! `/api/bridge/…`: registration, polls, answers, heartbeats and the models of a desktop.

use bytes::Bytes;
use proto::{EngineKind, ErrorDetail, ModelEntry, ModelName, Timestamp, WorkerReport, limits};
use serde::{Deserialize, Serialize};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::{Answer, EngineRequest, request::Http};
use crate::{
    clock::rfc3339,
    ollama::{json, parse},
};

/// Interval between two polls, in milliseconds: the original client always waits it.
const POLLING_INTERVAL: u32 = 100;
/// Time within which the client is to answer, in milliseconds.
const REQUEST_TIMEOUT: u32 = 60_000;
/// Interval of heartbeats, in milliseconds.
const HEARTBEAT_INTERVAL: u32 = 60_000;

/// The 404 message for a bridge that does not exist.
pub const UNKNOWN: &str = "Bridge not found or access denied";
/// The 400 message for an answer that does not say to which request.
pub const NO_REQUEST_ID: &str = "Missing requestId";
/// The 200 body of an answer.
pub const RECEIVED: &str = r#"{"success":true,"message":"Response received"}"#;
/// The 400 body of a registration that lacks a field.
pub const MISSING_FIELDS: &str = r#"{"error":"Missing required fields","message":"clientId, platform and version are required"}"#;

/// Returns the id of a new bridge: a random UUID.
#[must_use]
pub fn new_id(mut random: [u8; 16]) -> String {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let digits = proto::hex::encode(&random);
    let mut id = String::with_capacity(36);
    for (at, digit) in digits.chars().enumerate() {
        if [8, 12, 16, 20].contains(&at) {
            id.push('-');
        }
        id.push(digit);
    }
    id
}

/// Whether a text is an id as [`new_id`] writes it.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == b'-',
            _ => matches!(c, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// Whether a registration has all required fields.
#[must_use]
pub fn is_registration(body: &[u8]) -> bool {
    let fields = serde_json::from_slice::<serde_json::Map<String, Value>>(body);
    let has = |name: &str| {
        let value = fields.as_ref().ok().and_then(|fields| fields.get(name));
        value.is_some_and(|value| value.as_str().is_some_and(|text| !text.is_empty()))
    };
    ["clientId", "platform", "version"].into_iter().all(has)
}

/// Returns the 200 body of `POST /api/bridge/register`. `key` is the credential of the request.
#[must_use]
pub fn registered(id: &str, key: &str) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Registered<'a> {
        success: bool,
        bridge_id: &'a str,
        session_token: String,
        endpoints: Endpoints,
        config: Config,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Endpoints {
        polling: String,
        response: String,
        status: String,
        heartbeat: String,
        provider_status: String,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        polling_interval: u32,
        request_timeout: u32,
        heartbeat_interval: u32,
    }
    let at = |what: &str| format!("/api/bridge/{id}/{what}");
    json(&Registered {
        success: true,
        bridge_id: id,
        session_token: format!("Bearer {key}"),
        endpoints: Endpoints {
            polling: at("poll"),
            response: at("response"),
            status: at("status"),
            heartbeat: at("heartbeat"),
            provider_status: at("provider-status"),
        },
        config: Config {
            polling_interval: POLLING_INTERVAL,
            request_timeout: REQUEST_TIMEOUT,
            heartbeat_interval: HEARTBEAT_INTERVAL,
        },
    })
}

/// Returns the 200 body of a poll. The request is wanted `until` then.
#[must_use]
pub fn polled(
    request: Option<&EngineRequest<'_>>,
    has_more: bool,
    now: Timestamp,
    until: Timestamp,
) -> Bytes {
    #[derive(Serialize)]
    struct Polled<'a> {
        success: bool,
        requests: Vec<Item<'a>>,
        #[serde(rename = "hasMore")]
        has_more: bool,
    }
    #[derive(Serialize)]
    struct Item<'a> {
        #[serde(rename = "type")]
        kind: &'static str,
        data: &'a Http<'a>,
        id: &'a str,
        timestamp: String,
        timeout: i64,
    }
    let item = request.map(|request| Item {
        kind: "request",
        data: &request.http,
        id: &request.id,
        timestamp: rfc3339(now),
        timeout: until.0,
    });
    json(&Polled {
        success: true,
        requests: item.into_iter().collect(),
        has_more,
    })
}

impl Answer {
    /// Parses `POST /api/bridge/{id}/response`.
    ///
    /// # Errors
    /// `malformed_json` or `bad_request`, naming the field.
    pub fn parse(text: &[u8]) -> Result<Self, ErrorDetail> {
        #[derive(Deserialize)]
        struct Response<'a> {
            #[serde(default, rename = "requestId")]
            id: Option<String>,
            #[serde(default, borrow)]
            status: Option<&'a RawValue>,
            #[serde(default, borrow)]
            body: Option<&'a RawValue>,
            #[serde(default, borrow)]
            error: Option<&'a RawValue>,
        }
        // Not `parse`, which limits the structure of a body: the answer is a text in this one.
        let read = serde_json::from_slice::<Response<'_>>(text);
        let Ok(Response {
            id,
            status,
            body,
            error,
        }) = read
        else {
            return Err(refusal(text));
        };
        Ok(Self::new(id, status, body, error))
    }
}

/// Returns why a body is not an object with an optional `requestId`.
fn refusal(text: &[u8]) -> ErrorDetail {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default, rename = "requestId")]
        _id: Option<String>,
    }
    let refused = parse::<Object>(text).err();
    refused.unwrap_or_else(|| {
        ErrorDetail::new(
            proto::ErrorCode::BadRequest,
            "this is not a bridge's answer",
        )
    })
}

/// Returns the models that a desktop has, from `POST /api/bridge/{id}/provider-status`: those of
/// its enabled providers.
///
/// # Errors
/// `malformed_json` or `bad_request`, naming the field.
pub fn models(body: &[u8]) -> Result<Vec<ModelName>, ErrorDetail> {
    #[derive(Deserialize)]
    struct Status {
        #[serde(default)]
        providers: Vec<Provider>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Provider {
        #[serde(default)]
        available_models: Option<Vec<Value>>,
        #[serde(default)]
        is_enabled: Option<bool>,
    }
    let status: Status = parse(body)?;
    let enabled = status.providers.into_iter();
    let enabled = enabled.filter(|provider| provider.is_enabled != Some(false));
    let named = enabled.flat_map(|provider| provider.available_models.unwrap_or_default());
    let mut models: Vec<ModelName> = Vec::new();
    for model in named {
        let name = model.as_str().or_else(|| model.get("name")?.as_str());
        // A model whose name is not valid here cannot be asked for either.
        let name = name.and_then(|name| ModelName::new(name).ok());
        models.extend(name);
    }
    models.sort();
    models.dedup();
    models.truncate(limits::MODELS_MAX);
    Ok(models)
}

/// Returns the report of a desktop with these models.
#[must_use]
pub fn report(models: Vec<ModelName>) -> WorkerReport {
    #[derive(Serialize)]
    struct Tag<'a> {
        name: &'a ModelName,
        model: &'a ModelName,
    }
    let entry = |name: ModelName| {
        let tag = Tag {
            name: &name,
            model: &name,
        };
        let tag = to_raw_value(&tag).ok()?;
        let loaded = false;
        Some(ModelEntry { name, loaded, tag })
    };
    WorkerReport {
        engine: EngineKind::Ollama,
        engine_version: String::new(),
        engine_up: true,
        model_changes: false,
        models: models.into_iter().filter_map(entry).collect(),
    }
}

/// Returns the 200 body of a heartbeat.
#[must_use]
pub fn alive(now: Timestamp) -> Bytes {
    #[derive(Serialize)]
    struct Alive {
        success: bool,
        timestamp: String,
    }
    json(&Alive {
        success: true,
        timestamp: rfc3339(now),
    })
}

/// Returns the 200 body of `POST /api/bridge/{id}/provider-status`.
#[must_use]
pub fn updated(now: Timestamp) -> Bytes {
    #[derive(Serialize)]
    struct Updated {
        success: bool,
        message: &'static str,
        timestamp: String,
    }
    json(&Updated {
        success: true,
        message: "Provider status updated",
        timestamp: rfc3339(now),
    })
}

/// State of a bridge, as far as the relay keeps it.
#[derive(Debug, Clone, Copy)]
pub struct BridgeState<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its last request; `None` if there was none lately.
    pub seen: Option<Timestamp>,
    /// Whether it counts as online.
    pub is_online: bool,
    /// Models that it reported.
    pub models: &'a [ModelEntry],
    /// Number of waiting jobs that it could take.
    pub waiting: usize,
}

/// Returns the 200 body of `GET /api/bridge/{id}/status`. What the relay does not keep is empty.
#[must_use]
pub fn status(state: &BridgeState<'_>) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Status<'a> {
        bridge_id: &'a str,
        status: &'static str,
        last_seen: Option<String>,
        client: Client,
        providers: Vec<Provider<'a>>,
        last_provider_update: Option<String>,
        stats: Stats,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Client {
        client_id: &'static str,
        platform: &'static str,
        version: &'static str,
        capabilities: [&'static str; 0],
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Provider<'a> {
        available_models: Vec<&'a ModelName>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Stats {
        pending_requests: usize,
        completed_responses: u32,
    }
    let names: Vec<&ModelName> = state.models.iter().map(|model| &model.name).collect();
    let provider = (!names.is_empty()).then_some(Provider {
        available_models: names,
    });
    json(&Status {
        bridge_id: state.id,
        status: if state.is_online {
            "connected"
        } else {
            "disconnected"
        },
        last_seen: state.seen.map(rfc3339),
        client: Client {
            client_id: "",
            platform: "",
            version: "",
            capabilities: [],
        },
        providers: provider.into_iter().collect(),
        last_provider_update: None,
        stats: Stats {
            pending_requests: state.waiting,
            completed_responses: 0,
        },
    })
}
