//! Generates docs/ERRORS.md from the responses that the relay sends.

use std::{fmt::Write as _, fs, path::Path};

use proto::ErrorCode;
use serde_json::Value;

use crate::{error::ApiError, error_format::ErrorFormat};

const HEAD: &str = "\
# Errors

Every error has a stable code, which clients should switch on. The message is for people and may change. The code is
sent in the native body, in OpenAI's `code`, and in the header `x-hearth-error` of every error response.

The header `x-should-retry` says whether the same request may succeed if it is sent again; `Retry-After` gives the
number of seconds to wait first. If the engine itself refuses a request, its own status and message are passed on. On
Anthropic's routes, a full queue is reported with status 529 instead of 503.

| Code | Status | Retry | OpenAI `type` | Meaning |
|---|---|---|---|---|
";

const SHAPES: &str = "
## Format of the body

The body depends on the route; `/api/ollama/v1` is like `/v1`. An error that occurs before the answer begins has the
status above; for example:

";

const STREAMS: &str = "
## Errors after the answer has begun

The status has already been sent, so the error is sent in the stream, and the stream ends without the mark of a complete
answer (`\"done\":true`, `[DONE]`, `event: end` with `completed`). No stream ends without such a mark or an error: if the
worker is lost, the engine stops before its last line, the relay shuts down, or the job is cancelled, the stream ends as
follows.

| Stream | Last line after an error |
|---|---|
| Ollama | `{\"error\":\"…\"}` |
| OpenAI | `data: {\"error\":{…}}`, and no `[DONE]` after it; `event: error` from `/v1/responses` |
| Anthropic | `event: error` |
| native events | `event: end` with `data: {\"state\":\"failed\",\"error\":{…}}`; when the relay shuts down, the stream closes without it and can be resumed |

If an answer that is not streamed takes longer than `hearth relay --pad-after` (default 20 s; 0 disables this), the
response begins with status 200 and white space, so that no proxy closes the connection. A later error then has the body
shown above, but status 200: check the body for `error`. The header `x-hearth-job` always names the job.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for code in ErrorCode::ALL {
        let error = ApiError::new(*code, "");
        let again = match (error.is_worth_retrying(), error.retry_after()) {
            (true, Some(seconds)) => format!("after {seconds} s"),
            (true, None) => "yes".to_owned(),
            (false, _) => "no".to_owned(),
        };
        let openai: Value =
            serde_json::from_slice(&ErrorFormat::OpenAi.body(&error, None)).unwrap();
        writeln!(
            page,
            "| `{code}` | {} | {again} | `{}` | {} |",
            error.status().as_u16(),
            openai["error"]["type"].as_str().unwrap(),
            code.meaning()
        )
        .unwrap();
    }
    page += SHAPES;
    page += "| Routes | Body of `no_worker` |\n|---|---|\n";
    let error = ApiError::new(ErrorCode::NoWorker, "no worker is online");
    for (path, routes) in [
        (
            "/api/jobs",
            "native: `/api/jobs`, `/api/sessions`, `/api/worker`, `/api/admin`, and all outside `/api` and `/v1`",
        ),
        (
            "/api/chat",
            "Ollama and the polling protocol: the rest of `/api`",
        ),
        (
            "/api/queries",
            "query service: `/api/login`, `/api/token`, `/api/queries`, `/api/logs`",
        ),
        ("/v1/models", "OpenAI: the rest of `/v1`"),
        ("/v1/messages", "Anthropic: `/v1/messages`"),
    ] {
        let body = ErrorFormat::of(path).body(&error, Some("req_…"));
        writeln!(page, "| {routes} | `{}` |", str::from_utf8(&body).unwrap()).unwrap();
    }
    page + STREAMS
}

#[test]
fn the_page_of_errors_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ERRORS.md");
    let wanted = page();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        page, wanted,
        "run: UPDATE=1 cargo test -p hearth-relay --lib page_of_errors"
    );
}
