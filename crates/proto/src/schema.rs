//! JSON schemas of the types whose serialization is written by hand.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{
    Account, ErrorCode, JobId, MODEL_NAME_MAX, ModelName, Priority, Timestamp, WorkerId,
    status::v1::{Nonce, Proof},
};

macro_rules! schema {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

schema!(JobId, "JobId", {
    "type": "string",
    "pattern": "^[0-9a-f]{32}$",
    "description": "Identifier of a job for its whole life."
});
schema!(Nonce, "Nonce", {
    "type": "string",
    "pattern": "^[0-9a-f]{64}$",
    "description": "256 random bits that make a proof valid for one connection only."
});
schema!(Proof, "Proof", {
    "type": "string",
    "pattern": "^[0-9a-f]{64}$",
    "description": "An HMAC-SHA-256, see docs/PROTOCOL.md."
});
schema!(Account, "Account", {
    "type": "string",
    "pattern": "^[A-Za-z0-9._-]{1,64}$",
    "description": "Account that owns the job."
});
schema!(WorkerId, "WorkerId", {
    "type": "string",
    "pattern": "^[A-Za-z0-9._-]{1,64}$",
    "description": "Name of an agent."
});
schema!(ModelName, "ModelName", {
    "type": "string",
    "pattern": format!("^[A-Za-z0-9._:/-]{{1,{MODEL_NAME_MAX}}}$"),
    "description": "Name of a model as Ollama writes it, for example `qwen2.5:7b`."
});
schema!(Priority, "Priority", {
    "type": "integer",
    "minimum": 1,
    "maximum": 10,
    "default": 5,
    "description": "1 is the highest priority, 10 the lowest."
});
schema!(Timestamp, "Timestamp", {
    "type": "integer",
    "format": "int64",
    "description": "Milliseconds since 1970-01-01T00:00:00Z."
});
schema!(ErrorCode, "ErrorCode", {
    "type": "string",
    "enum": ErrorCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>(),
    "description": "A stable code to switch on. Later versions may add codes."
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_schema() {
        let schema = schemars::schema_for!(ErrorCode);
        let codes = schema.get("enum").and_then(|codes| codes.as_array());
        let codes: Vec<_> = codes
            .unwrap()
            .iter()
            .filter_map(|code| code.as_str())
            .collect();
        assert!(codes.contains(&"idempotency_conflict"));
        assert_eq!(codes.len(), ErrorCode::ALL.len());
    }
}
