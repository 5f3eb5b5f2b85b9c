//! Table of all routes for the OpenAPI document. A new route must be added here too.

use crate::headers;

use super::entry::{
    Content::{Bytes, Native, Natives, Nothing, Object, Streamed},
    Entry,
    Is::{Schema, Type},
    Param,
};

const OLLAMA: &str = "https://docs.ollama.com/api";
const ANTHROPIC: &str = "https://docs.anthropic.com/en/api/messages";
const OPENAI: &str = "https://platform.openai.com/docs/api-reference";

const NDJSON: &str = "application/x-ndjson";
const SSE: &str = "text/event-stream";
const TEXT: &str = "text/plain";

/// Headers of every route that creates a job.
const WISHES: &[Param] = &[
    Param::header(
        headers::IDEMPOTENCY_KEY,
        Type("string"),
        "1 to 255 printable characters; a repeat of the request finds its job",
    ),
    Param::header(
        headers::DEADLINE,
        Type("integer"),
        "Milliseconds, at most 7 days, for which the answer is wanted, also from an agent that \
         is away now",
    ),
    Param::header(
        headers::WORKER[0],
        Type("string"),
        "Only the agent of this name shall answer; `x-device-id` is the same",
    ),
];

const SEARCH: &[Param] = &[
    Param::query(
        "state",
        Type("string"),
        "Only in this state; `dead` is failed and not made anew since",
    ),
    Param::query("model", Schema("ModelName"), "Only for this model"),
    Param::query("op", Schema("Op"), "Only of this kind"),
    Param::query("since", Schema("Timestamp"), "Only accepted then or later"),
    Param::query("until", Schema("Timestamp"), "Only accepted before"),
    Param::query(
        "after",
        Type("string"),
        "The next page, as the `link` header of the last one named it",
    ),
    Param::query("limit", Type("integer"), "At most so many, 100 unless said"),
];

const PAGE: &[Param] = &[
    Param::query("after", Type("string"), "The last id of the page before"),
    Param::query("limit", Type("integer"), "At most so many, 20 unless said"),
];

pub(super) const ROUTES: &[Entry] = &[
    Entry::get(
        "/",
        "Says that it runs, in the words Ollama's clients look for; to a browser, the dashboard",
    )
    .gives(200, Bytes(TEXT)),
    Entry::get("/assets/{file}", "A file of the dashboard")
        .gives(200, Bytes("application/octet-stream")),
    Entry::get("/healthz", "The process answers"),
    Entry::get(
        "/readyz",
        "The store answers, and the relay is not going down",
    ),
    Entry::get("/openapi.json", "This document"),
    // Native jobs.
    Entry::post("/api/jobs", "Submit a job; it is on disk when this answers")
        .key("enqueue")
        .params(WISHES)
        .takes(Native("SubmitJob"))
        .gives(202, Native("JobView")),
    Entry::get("/api/jobs", "Own jobs, newest first")
        .key("read")
        .params(SEARCH)
        .gives(200, Natives("JobView")),
    Entry::get("/api/jobs/{id}", "One job")
        .key("read")
        .gives(200, Native("JobView")),
    Entry::delete("/api/jobs/{id}", "Withdraw a job")
        .key("enqueue")
        .gives(204, Nothing),
    Entry::post(
        "/api/jobs/{id}/retry",
        "A new job from the request of one that failed or was withdrawn; always the same one",
    )
    .key("enqueue")
    .takes(Nothing)
    .gives(202, Native("JobView")),
    Entry::get(
        "/api/jobs/{id}/answer",
        "The answer as one object, once there is one",
    )
    .key("read")
    .params(&[Param::query(
        "wait",
        Type("integer"),
        "Seconds to wait for it, at most 60",
    )]),
    Entry::get(
        "/api/jobs/{id}/events",
        "The answer as it is written, and its end",
    )
    .key("read")
    .params(&[
        Param::query("after", Type("string"), "The id of the last event seen"),
        Param::header(headers::LAST_EVENT, Type("string"), "The same"),
    ])
    .gives(200, Bytes(SSE)),
    // Operators.
    Entry::get(
        "/api/admin/overview",
        "What waits, what runs, who is here, the last hour",
    )
    .key("admin")
    .gives(200, Native("Overview")),
    Entry::get(
        "/api/admin/events",
        "The same as events `overview` and `minutes`, at once and at each change",
    )
    .key("admin")
    .gives(200, Bytes(SSE)),
    Entry::get("/api/admin/jobs", "Everybody's jobs, newest first")
        .key("admin")
        .params(SEARCH)
        .gives(200, Natives("JobView")),
    Entry::post("/api/admin/jobs/{id}/retry", "Make anybody's job anew")
        .key("admin")
        .takes(Nothing)
        .gives(202, Native("JobView")),
    Entry::delete("/api/admin/jobs/{id}", "Withdraw anybody's job")
        .key("admin")
        .gives(204, Nothing),
    Entry::get("/api/admin/keys", "The keys without their secrets")
        .key("admin")
        .gives(200, Natives("KeyView")),
    Entry::post(
        "/api/admin/keys",
        "Make a key; its text is in the answer and nowhere else",
    )
    .key("admin")
    .takes(Native("NewKey"))
    .gives(201, Native("KeyView")),
    Entry::delete(
        "/api/admin/keys/{id}",
        "Revoke a key, and end what it has open",
    )
    .key("admin")
    .gives(204, Nothing),
    // Ollama.
    Entry::post("/api/chat", "Ollama's chat")
        .key("enqueue")
        .params(WISHES)
        .gives(200, Streamed(NDJSON))
        .docs(OLLAMA),
    Entry::post("/api/generate", "Ollama's generate")
        .key("enqueue")
        .params(WISHES)
        .gives(200, Streamed(NDJSON))
        .docs(OLLAMA),
    Entry::post("/api/embed", "Ollama's embed")
        .key("enqueue")
        .params(WISHES)
        .docs(OLLAMA),
    Entry::post("/api/embeddings", "Ollama's older embeddings")
        .key("enqueue")
        .params(WISHES)
        .docs(OLLAMA),
    Entry::get("/api/tags", "The models of the agents online")
        .key("read")
        .docs(OLLAMA),
    Entry::get("/api/ps", "The models that are in memory")
        .key("read")
        .docs(OLLAMA),
    Entry::post("/api/show", "What an agent's engine says of a model")
        .key("read")
        .docs(OLLAMA),
    Entry::post(
        "/api/pull",
        "Pull a model, where an agent's owner allows it",
    )
    .key("admin")
    .gives(200, Streamed(NDJSON))
    .docs(OLLAMA),
    Entry::post("/api/push", "Refused: models are not uploaded")
        .key("read")
        .docs(OLLAMA),
    Entry::post(
        "/api/create",
        "Create a model from another, where an agent's owner allows it",
    )
    .key("admin")
    .gives(200, Streamed(NDJSON))
    .docs(OLLAMA),
    Entry::post(
        "/api/copy",
        "Copy a model, where an agent's owner allows it",
    )
    .key("admin")
    .gives(200, Nothing)
    .docs(OLLAMA),
    Entry::post("/api/blobs/{digest}", "Refused: models are not uploaded")
        .key("read")
        .docs(OLLAMA),
    Entry::delete(
        "/api/delete",
        "Delete a model, where an agent's owner allows it",
    )
    .key("admin")
    .gives(200, Nothing)
    .docs(OLLAMA),
    Entry::get("/api/version", "The lowest version that answers")
        .key("read")
        .docs(OLLAMA),
    // OpenAI.
    Entry::post("/v1/chat/completions", "OpenAI's chat completions")
        .key("enqueue")
        .params(WISHES)
        .gives(200, Streamed(SSE))
        .docs(OPENAI),
    Entry::post("/v1/completions", "OpenAI's older completions")
        .key("enqueue")
        .params(WISHES)
        .gives(200, Streamed(SSE))
        .docs(OPENAI),
    Entry::post("/v1/embeddings", "OpenAI's embeddings")
        .key("enqueue")
        .params(WISHES)
        .docs(OPENAI),
    Entry::post("/v1/responses", "OpenAI's responses, without memory")
        .key("enqueue")
        .params(WISHES)
        .gives(200, Streamed(SSE))
        .docs(OPENAI),
    Entry::post("/v1/messages", "Anthropic's messages")
        .key("enqueue")
        .params(WISHES)
        .gives(200, Streamed(SSE))
        .docs(ANTHROPIC),
    Entry::post(
        "/v1/messages/count_tokens",
        "About how many tokens a question has",
    )
    .key("enqueue")
    .docs(ANTHROPIC),
    Entry::get("/v1/models", "The models of the agents online")
        .key("read")
        .docs(OPENAI),
    Entry::get("/v1/models/{*id}", "One model")
        .key("read")
        .docs(OPENAI),
    Entry::post(
        "/v1/files",
        "Upload a file of requests for a batch (purpose, file)",
    )
    .key("enqueue")
    .takes(Bytes("multipart/form-data"))
    .docs(OPENAI),
    Entry::get("/v1/files", "Own files, newest first")
        .key("read")
        .params(PAGE)
        .docs(OPENAI),
    Entry::get("/v1/files/{id}", "One file")
        .key("read")
        .docs(OPENAI),
    Entry::delete("/v1/files/{id}", "Erase a file")
        .key("enqueue")
        .docs(OPENAI),
    Entry::get("/v1/files/{id}/content", "What is in a file")
        .key("read")
        .gives(200, Bytes("application/jsonl"))
        .docs(OPENAI),
    Entry::post("/v1/batches", "Answer every line of a file within a day")
        .key("enqueue")
        .docs(OPENAI),
    Entry::get("/v1/batches", "Own batches, newest first")
        .key("read")
        .params(PAGE)
        .docs(OPENAI),
    Entry::get("/v1/batches/{id}", "One batch")
        .key("read")
        .docs(OPENAI),
    Entry::post(
        "/v1/batches/{id}/cancel",
        "Stop a batch; what is answered is kept",
    )
    .key("enqueue")
    .takes(Nothing)
    .docs(OPENAI),
    // The engines' APIs for clients of the tunnel service.
    Entry::get(
        "/api/ollama",
        "Says that it runs, in the words Ollama's clients look for",
    )
    .gives(200, Bytes(TEXT)),
    Entry::get(
        "/api/ollama/{*path}",
        "The routes of Ollama and OpenAI: api/tags or tags, v1/models",
    )
    .key("read"),
    Entry::post(
        "/api/ollama/{*path}",
        "The routes of Ollama and OpenAI: api/chat or chat, v1/chat/completions",
    )
    .key("enqueue")
    .params(WISHES)
    .gives(200, Streamed(NDJSON)),
    Entry::delete(
        "/api/ollama/{*path}",
        "The routes of Ollama and OpenAI: v1/files/{id}",
    )
    .key("enqueue"),
    // Polling protocol.
    Entry::get(
        "/api/ollama/poll",
        "Lease a job, in the words of the polling relay",
    )
    .key("work")
    .or_nothing(),
    Entry::post("/api/ollama/response", "Answer a job leased so").key("work"),
    Entry::post("/api/ollama/request", "Submit a job to be fetched later").key("enqueue"),
    Entry::get("/api/ollama/status/{id}", "What became of it").key("read"),
    Entry::get("/api/v1/ollama/poll", "The same for its other poller").key("work"),
    Entry::post("/api/v1/ollama/response", "Answer a job leased so").key("work"),
    Entry::post("/api/v1/ollama/request", "Submit a job to be fetched later").key("enqueue"),
    Entry::get("/api/v1/ollama/status/{id}", "What became of it").key("read"),
    // Hearth's own users.
    Entry::post(
        "/api/sessions",
        "Log in: {username, password} gives an access_token for 15 minutes and a refresh_token",
    )
    .takes(Object)
    .gives(200, Object),
    Entry::post(
        "/api/sessions/renew",
        "New tokens for a refresh_token; shown twice, it ends the session",
    )
    .takes(Object)
    .gives(200, Object),
    Entry::post(
        "/api/sessions/end",
        "Log out: end the session of a refresh_token",
    )
    .takes(Object)
    .gives(204, Nothing),
    // The query service; its clients write a trailing slash.
    Entry::post("/api/login", "Tokens for a name and a password"),
    Entry::post("/api/token/refresh", "Another access token"),
    Entry::post("/api/queries", "Make a query")
        .key("enqueue")
        .gives(201, Object),
    Entry::get("/api/queries", "Own queries, newest first, 50 a page")
        .key("read")
        .params(&[Param::query("page", Type("integer"), "Which page, from 1")]),
    Entry::post(
        "/api/queries/claim_next",
        "Lease the oldest query that waits",
    )
    .key("work"),
    Entry::get("/api/queries/by_status", "Own queries with this status")
        .key("read")
        .params(&[Param::query(
            "status",
            Type("string"),
            "queued, in_progress, done or failed",
        )]),
    Entry::get("/api/queries/{id}", "One query, with its log").key("read"),
    Entry::patch(
        "/api/queries/{id}",
        "Answer a claimed query, or give it back",
    )
    .key("work"),
    Entry::delete("/api/queries/{id}", "Erase a query that has ended")
        .key("enqueue")
        .gives(204, Nothing),
    Entry::get("/api/queries/{id}/logs", "The log of a query").key("read"),
    Entry::post("/api/logs", "Add to the log of a query")
        .key("work")
        .gives(201, Object),
    // Hearth's own workers.
    Entry::get(
        "/api/worker/v1",
        "Upgrades to a WebSocket that carries jobs (subprotocol hearth.worker.v1)",
    )
    .key("work")
    .gives(101, Nothing),
    Entry::post("/api/worker/v1/poll", "Wait for jobs and for cancellations")
        .key("work")
        .or_nothing(),
    Entry::post(
        "/api/worker/v1/details",
        "Tell more of the engine than the report",
    )
    .key("work"),
    Entry::post(
        "/api/worker/v1/jobs/{id}/{attempt}/lines",
        "Add lines to the log of a leased job",
    )
    .key("work")
    .takes(Bytes(NDJSON))
    .gives(200, Object),
    Entry::post("/api/worker/v1/jobs/{id}/{attempt}/extend", "Keep a lease").key("work"),
    Entry::post("/api/worker/v1/jobs/{id}/{attempt}/end", "End a leased job").key("work"),
    Entry::post(
        "/api/worker/v1/jobs/{id}/{attempt}/nack",
        "Give a leased job back",
    )
    .key("work"),
];
