//! A worker on the HTTP carrier that falls silent in the middle of an answer and sends the rest
//! after its lease has expired.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    auditor::Mark,
    tagged_engine::{Question, last_line, line},
    test_bed::TestBed,
};

/// A run number that the engine never uses.
const RUN: u64 = 1_000_000;

/// A worker that holds one job.
#[derive(Debug)]
pub(crate) struct LateWorker {
    question: Question,
    path: String,
}

impl LateWorker {
    /// Leases the only queued job and sends half of its answer.
    pub(crate) async fn begin(bed: &TestBed, question: Question) -> Self {
        let model = json!({ "name": "tiny:latest", "loaded": true,
            "tag": { "name": "tiny:latest", "model": "tiny:latest", "size": 1 } });
        let report = json!({ "engine": "ollama", "engine_version": "0.33.0", "engine_up": true,
            "models": [model] });
        let poll = json!({ "worker": "late", "version": "0", "report": report, "free": 1,
            "held": [], "wait_ms": 20_000 });
        let polled = post(bed, "/api/worker/v1/poll", poll.to_string()).await;
        let polled: Value = polled.json().await.unwrap();
        let token = &polled["leases"][0]["token"];
        let (job, attempt) = (token["job"].as_str().unwrap(), &token["attempt"]);
        let late = Self {
            path: format!("/api/worker/v1/jobs/{job}/{attempt}"),
            question,
        };
        let half = late.question.words / 2;
        let said = late.say(bed, 1..=half).await;
        assert_eq!(said, StatusCode::OK, "its lease is good still");
        late
    }

    /// Sends the rest of the answer and its end; returns whether both were refused.
    pub(crate) async fn finish(self, bed: &TestBed) -> bool {
        let (half, all) = (self.question.words / 2, self.question.words);
        let said = self.say(bed, half + 1..=all).await;
        let end = json!({ "lines": all + 1, "end": { "state": "completed" } });
        let ended = post(bed, &format!("{}/end", self.path), end.to_string()).await;
        said == StatusCode::CONFLICT && ended.status() == StatusCode::CONFLICT
    }

    async fn say(&self, bed: &TestBed, words: std::ops::RangeInclusive<u64>) -> StatusCode {
        let (first, is_last) = (*words.start(), *words.end() == self.question.words);
        let mark = |n| Mark {
            question: self.question.name.clone(),
            run: RUN,
            n,
            of: self.question.words,
        };
        let mut lines: String = words
            .map(|n| line(&format!("{} ", mark(n)), true))
            .collect();
        if is_last {
            lines += &last_line(true);
        }
        let path = format!("{}/lines?first={first}", self.path);
        post(bed, &path, lines).await.status()
    }
}

async fn post(bed: &TestBed, path: &str, body: String) -> Response {
    let request = bed.http.post(bed.url(path)).bearer_auth(&bed.worker);
    request.body(body).send().await.unwrap()
}
