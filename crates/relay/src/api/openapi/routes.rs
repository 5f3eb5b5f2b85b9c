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
        "Idempotency key, 1 to 255 printable ASCII characters; a repeated request with the same \
         key gets the job of the first, or 410 `erased` once that is gone; a key is kept for at \
         least 48 hours",
    ),
    Param::header(
        headers::DEADLINE,
        Type("integer"),
        "Time within which the answer is needed, in milliseconds, at most 7 days; with it, the job \
         also waits for an agent that is offline",
    ),
    Param::header(
        headers::PRIORITY,
        Schema("Priority"),
        "Priority, 1 (highest) to 10; default 5, or the highest that the key permits if that is \
         lower; a higher one than that is refused",
    ),
    Param::header(
        headers::WORKER[0],
        Type("string"),
        "Name of the only agent that may answer; `x-device-id` has the same meaning",
    ),
];

const SEARCH: &[Param] = &[
    Param::query(
        "state",
        Type("string"),
        "Only jobs in this state; `dead` selects failed jobs that were not retried",
    ),
    Param::query("model", Schema("ModelName"), "Only jobs for this model"),
    Param::query("op", Schema("Op"), "Only jobs with this operation"),
    Param::query(
        "since",
        Schema("Timestamp"),
        "Only jobs accepted at this time or later",
    ),
    Param::query(
        "until",
        Schema("Timestamp"),
        "Only jobs accepted before this time",
    ),
    Param::query(
        "after",
        Type("string"),
        "Cursor of the next page, from the `link` header of the previous page",
    ),
    Param::query(
        "limit",
        Type("integer"),
        "Maximum number of jobs; default 100",
    ),
];

const PAGE: &[Param] = &[
    Param::query("after", Type("string"), "Last id of the previous page"),
    Param::query(
        "limit",
        Type("integer"),
        "Maximum number of entries, 1 to 100; default 20",
    ),
];

const HOLD: &[Param] = &[Param::query(
    "timeout",
    Type("integer"),
    "Maximum time to wait for a job, in milliseconds; at most 25,000, which is the default",
)];

pub(super) const ROUTES: &[Entry] = &[
    Entry::get(
        "/",
        "Get the text `Ollama is running`; a browser gets the dashboard",
    )
    .gives(200, Bytes(TEXT)),
    Entry::get("/assets/{file}", "Get a file of the dashboard")
        .gives(200, Bytes("application/octet-stream")),
    Entry::get("/healthz", "Check whether the process responds"),
    Entry::get(
        "/readyz",
        "Check whether the store responds and the relay is not shutting down",
    ),
    Entry::get("/openapi.json", "Get this document"),
    // Native jobs.
    Entry::post(
        "/api/jobs",
        "Submit a job; it is on disk when the response is sent",
    )
    .key("enqueue")
    .params(WISHES)
    .takes(Native("SubmitJob"))
    .gives(202, Native("JobView")),
    Entry::get("/api/jobs", "List your jobs, newest first")
        .key("read")
        .params(SEARCH)
        .gives(200, Natives("JobView")),
    Entry::get("/api/jobs/{id}", "Get a job")
        .key("read")
        .gives(200, Native("JobView")),
    Entry::delete("/api/jobs/{id}", "Cancel a job")
        .key("enqueue")
        .gives(204, Nothing),
    Entry::post(
        "/api/jobs/{id}/retry",
        "Retry a failed or cancelled job as a new job; repeated calls return the same new job",
    )
    .key("enqueue")
    .takes(Nothing)
    .gives(202, Native("JobView")),
    Entry::get(
        "/api/jobs/{id}/answer",
        "Get the answer as one object, after the job has ended",
    )
    .key("read")
    .params(&[Param::query(
        "wait",
        Type("integer"),
        "Maximum time to wait for the end of the job, in seconds; at most 60",
    )]),
    Entry::get(
        "/api/jobs/{id}/events",
        "Stream the answer while it is generated, then the end of the job",
    )
    .key("read")
    .params(&[
        Param::query(
            "after",
            Type("string"),
            "Id of the last event received; the stream continues after it",
        ),
        Param::header(
            headers::LAST_EVENT,
            Type("string"),
            "Same meaning as the query parameter `after`",
        ),
    ])
    .gives(200, Bytes(SSE)),
    // Operators.
    Entry::get(
        "/api/admin/overview",
        "Get the waiting and running jobs, the workers, and statistics of the last hour",
    )
    .key("admin")
    .gives(200, Native("Overview")),
    Entry::get(
        "/api/admin/events",
        "Stream the overview as events `overview` and `minutes`, at once and after each change",
    )
    .key("admin")
    .gives(200, Bytes(SSE)),
    Entry::get(
        "/api/admin/jobs",
        "List the jobs of all accounts, newest first",
    )
    .key("admin")
    .params(SEARCH)
    .gives(200, Natives("JobView")),
    Entry::get("/api/admin/jobs/{id}", "Get a job of any account")
        .key("admin")
        .gives(200, Native("JobView")),
    Entry::post(
        "/api/admin/jobs/{id}/retry",
        "Retry a failed or cancelled job of any account",
    )
    .key("admin")
    .takes(Nothing)
    .gives(202, Native("JobView")),
    Entry::delete("/api/admin/jobs/{id}", "Cancel a job of any account")
        .key("admin")
        .gives(204, Nothing),
    Entry::get("/api/admin/keys", "List the keys, without their secrets")
        .key("admin")
        .gives(200, Natives("KeyView")),
    Entry::post(
        "/api/admin/keys",
        "Create a key; only this response contains its secret",
    )
    .key("admin")
    .takes(Native("NewKey"))
    .gives(201, Native("KeyView")),
    Entry::delete(
        "/api/admin/keys/{id}",
        "Revoke a key, and end its open requests and connections",
    )
    .key("admin")
    .gives(204, Nothing),
    // Ollama.
    Entry::post("/api/chat", "Chat, in Ollama's format")
        .key("enqueue")
        .params(WISHES)
        .gives(200, Streamed(NDJSON))
        .docs(OLLAMA),
    Entry::post("/api/generate", "Generate, in Ollama's format")
        .key("enqueue")
        .params(WISHES)
        .gives(200, Streamed(NDJSON))
        .docs(OLLAMA),
    Entry::post("/api/embed", "Embed, in Ollama's format")
        .key("enqueue")
        .params(WISHES)
        .docs(OLLAMA),
    Entry::post("/api/embeddings", "Embeddings, in Ollama's older format")
        .key("enqueue")
        .params(WISHES)
        .docs(OLLAMA),
    Entry::get("/api/tags", "List the models of the online agents")
        .key("read")
        .docs(OLLAMA),
    Entry::get("/api/ps", "List the models that are loaded in memory")
        .key("read")
        .docs(OLLAMA),
    Entry::post(
        "/api/show",
        "Get the details of a model, as reported by an agent's engine",
    )
    .key("read")
    .docs(OLLAMA),
    Entry::post(
        "/api/pull",
        "Pull a model, on an agent whose owner allows it",
    )
    .key("admin")
    .gives(200, Streamed(NDJSON))
    .docs(OLLAMA),
    Entry::post("/api/push", "Not supported: models cannot be uploaded")
        .key("read")
        .docs(OLLAMA),
    Entry::post(
        "/api/create",
        "Create a model from another one, on an agent whose owner allows it",
    )
    .key("admin")
    .gives(200, Streamed(NDJSON))
    .docs(OLLAMA),
    Entry::post(
        "/api/copy",
        "Copy a model, on an agent whose owner allows it",
    )
    .key("admin")
    .gives(200, Nothing)
    .docs(OLLAMA),
    Entry::post(
        "/api/blobs/{digest}",
        "Not supported: models cannot be uploaded",
    )
    .key("read")
    .docs(OLLAMA),
    Entry::delete(
        "/api/delete",
        "Delete a model, on an agent whose owner allows it",
    )
    .key("admin")
    .gives(200, Nothing)
    .docs(OLLAMA),
    Entry::get(
        "/api/version",
        "Get the lowest version of the online Ollama engines",
    )
    .key("read")
    .docs(OLLAMA),
    // OpenAI.
    Entry::post(
        "/v1/chat/completions",
        "Chat completions, in OpenAI's format",
    )
    .key("enqueue")
    .params(WISHES)
    .gives(200, Streamed(SSE))
    .docs(OPENAI),
    Entry::post("/v1/completions", "Completions, in OpenAI's older format")
        .key("enqueue")
        .params(WISHES)
        .gives(200, Streamed(SSE))
        .docs(OPENAI),
    Entry::post("/v1/embeddings", "Embeddings, in OpenAI's format")
        .key("enqueue")
        .params(WISHES)
        .docs(OPENAI),
    Entry::post(
        "/v1/responses",
        "Responses, in OpenAI's format; no response is stored",
    )
    .key("enqueue")
    .params(WISHES)
    .gives(200, Streamed(SSE))
    .docs(OPENAI),
    Entry::post("/v1/messages", "Messages, in Anthropic's format")
        .key("enqueue")
        .params(WISHES)
        .gives(200, Streamed(SSE))
        .docs(ANTHROPIC),
    Entry::post(
        "/v1/messages/count_tokens",
        "Estimate the number of tokens of a request",
    )
    .key("enqueue")
    .docs(ANTHROPIC),
    Entry::get("/v1/models", "List the models of the online agents")
        .key("read")
        .docs(OPENAI),
    Entry::get("/v1/models/{*id}", "Get a model")
        .key("read")
        .docs(OPENAI),
    Entry::post(
        "/v1/files",
        "Upload the input file of a batch (form fields `purpose` and `file`)",
    )
    .key("enqueue")
    .takes(Bytes("multipart/form-data"))
    .docs(OPENAI),
    Entry::get("/v1/files", "List your files, newest first")
        .key("read")
        .params(PAGE)
        .docs(OPENAI),
    Entry::get("/v1/files/{id}", "Get the metadata of a file")
        .key("read")
        .docs(OPENAI),
    Entry::delete("/v1/files/{id}", "Erase a file")
        .key("enqueue")
        .docs(OPENAI),
    Entry::get("/v1/files/{id}/content", "Get the content of a file")
        .key("read")
        .gives(200, Bytes("application/jsonl"))
        .docs(OPENAI),
    Entry::post(
        "/v1/batches",
        "Create a batch: every line of a file is answered within 24 hours",
    )
    .key("enqueue")
    .docs(OPENAI),
    Entry::get("/v1/batches", "List your batches, newest first")
        .key("read")
        .params(PAGE)
        .docs(OPENAI),
    Entry::get("/v1/batches/{id}", "Get a batch")
        .key("read")
        .docs(OPENAI),
    Entry::post(
        "/v1/batches/{id}/cancel",
        "Cancel a batch; finished answers are kept",
    )
    .key("enqueue")
    .takes(Nothing)
    .docs(OPENAI),
    // The engines' APIs for clients of the tunnel service.
    Entry::get("/api/ollama", "Get the text `Ollama is running`").gives(200, Bytes(TEXT)),
    Entry::get(
        "/api/ollama/{*path}",
        "GET routes of Ollama and OpenAI, for example api/tags, tags or v1/models",
    )
    .key("read"),
    Entry::post(
        "/api/ollama/{*path}",
        "POST routes of Ollama and OpenAI, for example api/chat, chat or v1/chat/completions",
    )
    .key("enqueue")
    .params(WISHES)
    .gives(200, Streamed(NDJSON)),
    Entry::delete(
        "/api/ollama/{*path}",
        "DELETE routes of Ollama and OpenAI, for example v1/files/{id}",
    )
    .key("enqueue"),
    // Polling protocol.
    Entry::get("/api/ollama/poll", "Lease a job, in the polling protocol")
        .key("work")
        .or_nothing(),
    Entry::post(
        "/api/ollama/response",
        "Submit the answer to a job leased by polling",
    )
    .key("work"),
    Entry::post(
        "/api/ollama/request",
        "Submit a job, in the polling protocol; its answer is fetched later",
    )
    .key("enqueue"),
    Entry::get(
        "/api/ollama/status/{id}",
        "Get the state of a job and its answer, in the polling protocol",
    )
    .key("read"),
    Entry::get(
        "/api/v1/ollama/poll",
        "Lease a job, in the second variant of the polling protocol",
    )
    .key("work"),
    Entry::post(
        "/api/v1/ollama/response",
        "Submit the answer to a job leased by polling",
    )
    .key("work"),
    Entry::post(
        "/api/v1/ollama/request",
        "Submit a job, in the polling protocol; its answer is fetched later",
    )
    .key("enqueue"),
    Entry::get(
        "/api/v1/ollama/status/{id}",
        "Get the state of a job and its answer, in the polling protocol",
    )
    .key("read"),
    // Hearth's own users.
    Entry::post(
        "/api/sessions",
        "Log in: {username, password} returns an access_token valid for 15 minutes and a \
         refresh_token",
    )
    .takes(Object)
    .gives(200, Object),
    Entry::post(
        "/api/sessions/renew",
        "Renew the tokens: {refresh_token} returns new ones; a refresh_token used twice ends the \
         session",
    )
    .takes(Object)
    .gives(200, Object),
    Entry::post(
        "/api/sessions/end",
        "Log out: {refresh_token} ends its session",
    )
    .takes(Object)
    .gives(204, Nothing),
    // The query service; its clients write a trailing slash.
    Entry::post(
        "/api/login",
        "Log in to the query service: returns tokens for a name and a password",
    ),
    Entry::post(
        "/api/token/refresh",
        "Get a new access token for the query service",
    ),
    Entry::post("/api/queries", "Create a query")
        .key("enqueue")
        .gives(201, Object),
    Entry::get(
        "/api/queries",
        "List your queries, newest first, 50 per page",
    )
    .key("read")
    .params(&[Param::query(
        "page",
        Type("integer"),
        "Page number, starting at 1",
    )]),
    Entry::post("/api/queries/claim_next", "Lease the oldest waiting query").key("work"),
    Entry::get(
        "/api/queries/by_status",
        "List your queries with one status",
    )
    .key("read")
    .params(&[Param::query(
        "status",
        Type("string"),
        "The status: queued, in_progress, done or failed",
    )]),
    Entry::get("/api/queries/{id}", "Get a query with its log").key("read"),
    Entry::patch(
        "/api/queries/{id}",
        "Answer a claimed query, or return it to the queue",
    )
    .key("work"),
    Entry::delete("/api/queries/{id}", "Erase a query that has ended")
        .key("enqueue")
        .gives(204, Nothing),
    Entry::get("/api/queries/{id}/logs", "Get the log of a query").key("read"),
    Entry::post("/api/logs", "Add an entry to the log of a query")
        .key("work")
        .gives(201, Object),
    // The tunnel service's desktops.
    Entry::post(
        "/api/bridge/register",
        "Register a desktop of the tunnel service: returns the id of its bridge",
    )
    .key("work"),
    Entry::get(
        "/api/bridge/{id}/poll",
        "Lease a job as a request of the engine's API",
    )
    .key("work")
    .params(HOLD),
    Entry::post("/api/bridge/{id}/response", "Submit the engine's response").key("work"),
    Entry::post(
        "/api/bridge/{id}/heartbeat",
        "Extend the leases of the bridge",
    )
    .key("work")
    .takes(Nothing),
    Entry::post(
        "/api/bridge/{id}/provider-status",
        "Report the models of the desktop",
    )
    .key("work"),
    Entry::get("/api/bridge/{id}/status", "Get the state of a bridge").key("work"),
    Entry::get(
        "/api/bridge/poll/{id}",
        "Lease a job, by the path of the tunnel service's document",
    )
    .key("work")
    .params(HOLD),
    Entry::post(
        "/api/bridge/respond/{id}/{request}",
        "Submit the engine's response, by the path of the tunnel service's document",
    )
    .key("work"),
    Entry::post(
        "/api/bridge/heartbeat/{id}",
        "Extend the leases of the bridge, by the path of the tunnel service's document",
    )
    .key("work")
    .takes(Nothing),
    Entry::get(
        "/ws/tunnel",
        "Open a WebSocket that carries requests of the engine's API to a desktop",
    )
    .key("work")
    .params(&[Param::query(
        "token",
        Type("string"),
        "The key or token, for clients that can send it in no header; no other route accepts it \
         in the query",
    )])
    .gives(101, Nothing),
    // Hearth's own workers.
    Entry::get(
        "/api/worker/v1",
        "Open a WebSocket that carries jobs (subprotocol hearth.worker.v1)",
    )
    .key("work")
    .gives(101, Nothing),
    Entry::post("/api/worker/v1/poll", "Wait for jobs and cancellations")
        .key("work")
        .or_nothing(),
    Entry::post(
        "/api/worker/v1/details",
        "Send details of the engine's models that are not in the report",
    )
    .key("work"),
    Entry::post(
        "/api/worker/v1/jobs/{id}/{attempt}/lines",
        "Append lines to the answer of a leased job",
    )
    .key("work")
    .takes(Bytes(NDJSON))
    .gives(200, Object),
    Entry::post(
        "/api/worker/v1/jobs/{id}/{attempt}/extend",
        "Extend a lease",
    )
    .key("work"),
    Entry::post("/api/worker/v1/jobs/{id}/{attempt}/end", "End a leased job").key("work"),
    Entry::post(
        "/api/worker/v1/jobs/{id}/{attempt}/nack",
        "Return a leased job to the queue",
    )
    .key("work"),
];
