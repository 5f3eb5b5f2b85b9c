//! The variant used by the original poller in production: `has_job`, `job_uuid`, `response_text`.

use bytes::Bytes;
use proto::ErrorDetail;
use serde::{Deserialize, Serialize};

use super::{Answer, PolledRequest};
use crate::ollama::{json, parse};

/// The 200 body of a poll without a job: this poller treats any other status as an error.
pub const NO_JOB: &str = r#"{"has_job":false}"#;

/// Returns the 200 body of a poll with a job.
#[must_use]
pub fn polled_job(request: &PolledRequest) -> Bytes {
    #[derive(Serialize)]
    struct Polled<'a> {
        has_job: bool,
        job: Job<'a>,
    }
    #[derive(Serialize)]
    struct Job<'a> {
        job_uuid: &'a str,
        request_data: Data<'a>,
    }
    #[derive(Serialize)]
    struct Data<'a> {
        system: Option<&'a str>,
        user: &'a str,
        model: &'a proto::ModelName,
        temperature: Option<f64>,
        max_tokens: Option<i64>,
    }
    json(&Polled {
        has_job: true,
        job: Job {
            job_uuid: &request.id,
            request_data: Data {
                system: request.system_prompt.as_deref(),
                user: &request.prompt,
                model: &request.model,
                temperature: request.temperature,
                max_tokens: request.max_tokens,
            },
        },
    })
}

/// Parses an answer. `response_metadata` is an object, or an empty list in failures, and is
/// ignored.
///
/// # Errors
/// `malformed_json` or `bad_request`, naming the field.
pub fn answer(body: &[u8]) -> Result<Answer, ErrorDetail> {
    #[derive(Deserialize)]
    struct Said {
        job_uuid: String,
        #[serde(default)]
        response_text: Option<String>,
        #[serde(default)]
        error_message: Option<String>,
    }
    let said: Said = parse(body)?;
    let error = said.error_message.filter(|message| !message.is_empty());
    Ok(Answer {
        id: said.job_uuid,
        response: said.response_text,
        success: Some(error.is_none()),
        error,
    })
}

#[cfg(test)]
mod tests {
    use proto::{JobId, LeaseToken, ModelName, Op, Timestamp};

    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../fixtures/relay_polling/", $name)).trim_end()
        };
    }

    #[test]
    fn a_job_is_polled_in_exactly_these_bytes() {
        let token = LeaseToken {
            job: JobId([0xab; 16]),
            attempt: 1,
        };
        let model = ModelName::new("qwen2.5:7b").unwrap();
        for (native, want) in [
            (
                fixture!("request-native.json"),
                fixture!("production-polled.json"),
            ),
            (
                r#"{"prompt":"x"}"#,
                fixture!("production-polled-nulls.json"),
            ),
        ] {
            let op = if native.contains("messages") {
                Op::Chat
            } else {
                Op::Generate
            };
            let request = PolledRequest::of(token, op, &model, native.as_bytes(), Timestamp(0));
            assert_eq!(polled_job(&request.unwrap()), want);
        }
    }

    #[test]
    fn an_answer_is_read_with_metadata_of_either_kind() {
        let answered = answer(fixture!("production-response.json").as_bytes()).unwrap();
        assert_eq!(answered.outcome(), Ok("Python to język programowania..."));
        let failed = answer(fixture!("production-failed.json").as_bytes()).unwrap();
        assert_eq!(failed.outcome(), Err("Ollama API error: HTTP 500"));
        let empty = answer(br#"{"job_uuid":"x","response_text":""}"#).unwrap();
        assert_eq!(empty.outcome(), Ok(""));
        assert!(answer(br#"{"response_text":"x"}"#).is_err());
    }
}
