//! The end of a stream whose engine breaks off: an error in every dialect.

use hearth_tests::test_bed::TestBed;
use serde_json::Value;

use crate::{
    scene,
    wire::{Wire, question},
};

#[tokio::test]
async fn a_stream_that_breaks_ends_with_the_error_object_of_its_dialect() {
    let (bed, ollama) = TestBed::scripted().await;
    for path in [
        "/api/chat",
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
    ] {
        ollama.script("/api/chat", scene::named("a_death", false).unwrap());
        let wire = Wire::post(&bed, path, &question(path, true)).await;
        assert!(wire.head.starts_with("http/1.1 200"), "{}", wire.head);
        let text = wire.rest().await.concat();
        for end in [
            "[DONE]",
            r#""done":true"#,
            r#""finish_reason":""#,
            "response.completed",
            "message_stop",
        ] {
            assert!(
                !text.contains(end),
                "{path} ends as if it were whole: {text}"
            );
        }
        let last = text.trim_end().lines().last().unwrap();
        let error: Value = serde_json::from_str(last.trim_start_matches("data: ")).unwrap();
        let told = match path {
            "/api/chat" => &error["error"],
            "/v1/responses" => &error["message"],
            _ => &error["error"]["message"],
        };
        assert!(
            told.as_str().is_some_and(|told| told.contains("engine")),
            "{error}"
        );
    }
}
