//! Generates docs/ERRORS.md from the responses that the relay sends.

use std::{fmt::Write as _, fs, path::Path};

use proto::ErrorCode;
use serde_json::Value;

use crate::{error::ApiError, error_format::ErrorFormat};

const HEAD: &str = "\
# Errors

Every error has a stable code. Clients switch on it; the message is for people and may change. The code stands in the
native body, in OpenAI's `code`, and in the header `x-hearth-error` of every refusal.

`x-should-retry` says whether the same request may go well if it is sent once more; `Retry-After` says after how many
seconds. What the engine itself refuses keeps the engine's own status and words. Anthropic's clients are told 529 instead of 503 when the queue is full.

| Code | Status | Try again | OpenAI `type` | Meaning |
|---|---|---|---|---|
";

const SHAPES: &str = "
## In whose words

The same failure before an answer began, as the body of a response with the status above:

";

const STREAMS: &str = "
## After an answer began

The status was sent before the failure was known, so it is told in the stream, and the stream ends without what marks a
whole answer (`\"done\":true`, `[DONE]`, `event: end` with `completed`). No stream ends silently: a lost worker, an engine that
stops without its last line, a relay that shuts down and a withdrawn job all end in one of these.

| Stream | Its last line |
|---|---|
| Ollama | `{\"error\":\"…\"}` |
| OpenAI | `data: {\"error\":{…}}`, and no `[DONE]` after it; `event: error` from `/v1/responses` |
| Anthropic | `event: error` |
| native events | `event: end` with `data: {\"state\":\"failed\",\"error\":{…}}`; when the relay shuts down the stream just closes, to be resumed |

An answer in one piece that takes longer than `hearth relay --pad-after` (20 s; 0 is never) begins with status 200 and
white space, so that no proxy cuts the connection. A failure after that is the same body as above, under the status 200:
look for `error` in it. The header `x-hearth-job` names the job in any case.
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
            "native: `/api/jobs`, `/api/sessions`, `/api/worker`",
        ),
        (
            "/api/chat",
            "Ollama and the polling relay: the rest of `/api`",
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
