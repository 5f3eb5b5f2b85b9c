//! The official clients, unmodified and with their default settings, against a real relay and
//! agent.
//!
//! Each client has a script in `python/` or `node/` with one function per case; the cases are
//! listed here. `scripts/fetch-clients.sh` installs the pinned clients.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

mod breaks;
mod events;
mod loss;
mod scene;
mod script;
mod silence;
mod stage;
mod wire;

use script::Client;
use stage::Both;

/// The cases that every chat client must pass.
const CHAT: [&str; 15] = [
    "a_whole_answer_and_a_streamed_one_are_alike",
    "a_limit_ends_the_answer_with_length",
    "a_stop_word_ends_the_answer_before_it",
    "a_schema_is_kept",
    "an_unknown_model_is_not_found",
    "a_wrong_key_is_an_authentication_error",
    "a_malformed_request_is_a_bad_request",
    "leaving_a_stream_stops_the_engine",
    "two_questions_at_once_are_both_answered",
    "without_an_agent_the_refusal_is_told",
    "an_engine_that_dies_mid_stream_is_an_error",
    "a_tool_is_called_whole_and_streamed",
    "thoughts_are_kept_apart_from_the_answer",
    "an_image_reaches_the_engine",
    "a_long_silence_is_survived_whole_and_streamed",
];
const SEED: &str = "temperature_and_seed_decide_the_answer";
const LIST: &str = "models_are_listed";
const EMBED: &str = "texts_become_vectors";
const SHOW: &str = "a_model_is_shown";
const LOAD: &str = "a_model_is_loaded_without_a_question";
const PATH_KEY: &str = "a_key_in_the_address_is_enough";
const NO_EMBED: &str = "an_engine_without_embeddings_refuses";

/// Runs a client's script on its own stage; it must pass exactly these cases.
async fn passes(client: Client, more: &[&str]) {
    let stage = Both::new().await;
    let report = script::run(client, &[], &stage).await;
    let wanted: Vec<&str> = CHAT.iter().chain(more).copied().collect();
    report.check(&wanted);
}

#[tokio::test]
async fn the_python_client_of_ollama_is_served() {
    let more = [
        LIST,
        SEED,
        "a_text_is_continued_whole_and_streamed",
        "giving_up_on_a_whole_answer_stops_the_engine",
        "a_text_becomes_a_vector_the_older_way",
        SHOW,
        LOAD,
        EMBED,
        NO_EMBED,
        PATH_KEY,
    ];
    passes(Client::python("with_ollama.py"), &more).await;
}

#[tokio::test]
async fn the_python_client_of_openai_is_served() {
    let more = [
        LIST,
        SEED,
        "a_text_is_continued_whole_and_streamed",
        EMBED,
        NO_EMBED,
        PATH_KEY,
        "a_response_is_given_whole_and_streamed",
        "a_response_that_fails_says_so",
        "a_response_calls_a_tool",
        "a_batch_is_answered",
    ];
    passes(Client::python("with_openai.py"), &more).await;
}

#[tokio::test]
async fn the_python_client_of_anthropic_is_served() {
    let more = [
        LIST,
        "temperature_decides_the_answer",
        "tokens_are_counted_as_the_answer_counts_them",
    ];
    passes(Client::python("with_anthropic.py"), &more).await;
}

#[tokio::test]
async fn the_node_client_of_ollama_is_served() {
    passes(
        Client::node("with_ollama.cjs"),
        &[LIST, SEED, EMBED, NO_EMBED, PATH_KEY, SHOW, LOAD],
    )
    .await;
}

#[tokio::test]
async fn the_node_client_of_openai_is_served() {
    let more = [
        LIST,
        SEED,
        EMBED,
        NO_EMBED,
        PATH_KEY,
        "a_response_is_given_whole_and_streamed",
    ];
    passes(Client::node("with_openai.cjs"), &more).await;
}

#[tokio::test]
async fn the_ai_sdk_is_served() {
    passes(Client::node("with_ai_sdk.cjs"), &[SEED, EMBED]).await;
}

#[tokio::test]
async fn langchain_is_served() {
    passes(Client::python("with_langchain.py"), &[SEED, EMBED]).await;
}
