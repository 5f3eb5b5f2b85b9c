//! The schemas of what is written by hand on the wire.

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
    "description": "Identifies one job for its whole life."
});
schema!(Nonce, "Nonce", {
    "type": "string",
    "pattern": "^[0-9a-f]{64}$",
    "description": "256 random bits that make a proof good for one connection."
});
schema!(Proof, "Proof", {
    "type": "string",
    "pattern": "^[0-9a-f]{64}$",
    "description": "An HMAC-SHA-256, as docs/PROTOCOL.md says."
});
schema!(Account, "Account", {
    "type": "string",
    "pattern": "^[A-Za-z0-9._-]{1,64}$",
    "description": "Whose the job is."
});
schema!(WorkerId, "WorkerId", {
    "type": "string",
    "pattern": "^[A-Za-z0-9._-]{1,64}$",
    "description": "The name of an agent."
});
schema!(ModelName, "ModelName", {
    "type": "string",
    "pattern": format!("^[A-Za-z0-9._:/-]{{1,{MODEL_NAME_MAX}}}$"),
    "description": "A model's name as Ollama writes it, for example `qwen2.5:7b`."
});
schema!(Priority, "Priority", {
    "type": "integer",
    "minimum": 1,
    "maximum": 10,
    "default": 5,
    "description": "1 is the most urgent, 10 the least."
});
schema!(Timestamp, "Timestamp", {
    "type": "integer",
    "format": "int64",
    "description": "Milliseconds since 1970-01-01T00:00:00Z."
});
schema!(ErrorCode, "ErrorCode", {
    "type": "string",
    "enum": ErrorCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>(),
    "description": "Stable; switch on it. Later versions may add some."
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
