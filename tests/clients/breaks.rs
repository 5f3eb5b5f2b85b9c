//! How a stream ends when its engine breaks off: told, in every dialect.

use hearth_tests::stand::Stand;
use serde_json::Value;

use crate::{
    scene,
    wire::{Wire, question},
};

#[tokio::test]
async fn a_stream_that_breaks_ends_with_the_error_object_of_its_dialect() {
    let (stand, ollama) = Stand::scripted().await;
    for path in ["/api/chat", "/v1/chat/completions"] {
        ollama.script("/api/chat", scene::named("a_death", false).unwrap());
        let wire = Wire::post(&stand, path, &question(true)).await;
        assert!(wire.head.starts_with("http/1.1 200"), "{}", wire.head);
        wire.has("cache-control: no-cache");
        let text = wire.rest().await.concat();
        assert!(
            !text.contains("[DONE]") && !text.contains(r#""done":true"#),
            "{text}"
        );
        assert!(!text.contains(r#""finish_reason":""#), "{text}");
        let last = text.trim_end().lines().last().unwrap();
        let error: Value = serde_json::from_str(last.trim_start_matches("data: ")).unwrap();
        match path {
            "/api/chat" => assert!(error["error"].is_string(), "{error}"),
            _ => {
                assert!(error["error"]["message"].is_string(), "{error}");
                assert_eq!(error["error"]["code"], "engine_failed", "{error}");
            }
        }
    }
}
