//! Tests of how the time of a job is limited, in paused time.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use engine::{Engine, Lines};
use futures_util::stream;
use proto::{EngineKind, JobId, ModelEntry, WorkerReport};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{Outgoing, Random, Tuning, WorkerSettings};

const MINUTE: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// Every job of these tests ends within this time.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
const BODY: &str = r#"{"model":"tiny","messages":[{}]}"#;

/// An engine whose answer has one item after each pause, and then never ends.
#[derive(Debug, Default)]
struct Script(Mutex<Vec<(Duration, Result<Bytes, EngineError>)>>);

impl Script {
    fn of(items: Vec<(Duration, Result<&'static str, EngineError>)>) -> Arc<Self> {
        let items = items.into_iter();
        let items = items.map(|(pause, line)| (pause, line.map(Bytes::from)));
        Arc::new(Self(Mutex::new(items.collect())))
    }

    /// Writes a line every minute.
    fn talkative(minutes: usize) -> Arc<Self> {
        Self::of(vec![(MINUTE, Ok("{}")); minutes])
    }
}

#[async_trait]
impl Engine for Script {
    fn name(&self) -> String {
        "script".into()
    }

    fn kind(&self) -> EngineKind {
        EngineKind::Ollama
    }

    async fn report(&self) -> Result<WorkerReport, EngineError> {
        let model = ModelEntry {
            name: ModelName::new("tiny").unwrap(),
            loaded: true,
            tag: RawValue::from_string("{}".into()).unwrap(),
        };
        Ok(WorkerReport {
            model_changes: false,
            engine: EngineKind::Ollama,
            engine_version: "1".into(),
            engine_up: true,
            models: vec![model],
        })
    }

    async fn start(&self, _: Op, _: Body) -> Result<Lines, EngineError> {
        let items = self.0.lock().unwrap().clone().into_iter();
        Ok(Box::pin(stream::unfold(items, |mut items| async {
            let Some((pause, line)) = items.next() else {
                return future::pending().await;
            };
            sleep(pause).await;
            Some((line, items))
        })))
    }
}

async fn table(engine: Arc<Script>, job_limit: Option<Duration>) -> Arc<JobTable> {
    let relay = "http://127.0.0.1".parse().unwrap();
    let worker = "worker".parse().unwrap();
    let settings = WorkerSettings {
        allow_model_changes: true,
        tuning: Tuning {
            job_limit,
            random: Random::new(|| 0.0),
            ..Tuning::default()
        },
        ..WorkerSettings::new(relay, "key".into(), worker)
    };
    let table = JobTable::new(engine, &settings);
    table.engine_up(table.engine().report().await.unwrap());
    table
}

/// Runs one job; returns its end, and the time that it took.
async fn run(table: &Arc<JobTable>, op: Op, wanted: Option<Duration>) -> (Outgoing, Duration) {
    let began = Instant::now();
    let token = LeaseToken {
        job: JobId([1; 16]),
        attempt: 1,
    };
    let head = LeaseHead {
        token,
        op,
        model: ModelName::new("tiny").unwrap(),
        who: "laptop".into(),
        deadline: None,
        remaining_ms: wanted.map(|wanted| u64::try_from(wanted.as_millis()).unwrap()),
        body_len: BODY.len(),
    };
    table.lease(head, BODY.into());
    let ended = async {
        loop {
            match table.next(|_| false) {
                Some(Outgoing::Lines { first, lines, .. }) => {
                    table.stored(token, first - 1 + lines.len() as u64);
                }
                Some(end) => return end,
                None => table.changed().await,
            }
        }
    };
    let end = timeout(PATIENCE, ended).await.expect("it never ended");
    table.closed(token, None);
    (end, began.elapsed())
}

fn failure(end: &Outgoing) -> (u64, &JobError) {
    let Outgoing::End {
        lines,
        end: End::Failed { error },
        ..
    } = end
    else {
        panic!("{end:?}");
    };
    (*lines, error)
}

#[tokio::test(start_paused = true)]
async fn a_job_that_runs_longer_than_the_limit_fails_and_is_not_tried_again() {
    let table = table(Script::talkative(100), Tuning::default().job_limit).await;
    let (end, took) = run(&table, Op::Chat, None).await;
    let (lines, error) = failure(&end);
    assert_eq!((lines, error.code), (30, ErrorCode::DeadlineExceeded));
    for part in ["1800 s", "--job-limit"] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    assert_eq!(took.as_secs(), (LIMIT + GRACE).as_secs());
    assert_eq!(table.free().0, 1, "the slot is free again");
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_and_while_models_are_changed_a_job_runs_on() {
    let items = |last| {
        let mut items = vec![(MINUTE, Ok(r#"{"status":"pulling"}"#)); 180];
        items.push((MINUTE, Err(EngineError::Broken(last))));
        Script::of(items)
    };
    for (op, limit) in [(Op::Chat, None), (Op::Pull, Some(LIMIT))] {
        let table = table(items("the end".into()), limit).await;
        let (end, took) = run(&table, op, None).await;
        let (lines, error) = failure(&end);
        assert_eq!((lines, error.code), (180, ErrorCode::EngineFailed), "{op}");
        assert_eq!(took.as_secs(), 181 * 60);
    }
}

#[tokio::test(start_paused = true)]
async fn of_deadline_and_limit_the_earlier_one_ends_the_job() {
    let table = table(Script::talkative(100), Some(LIMIT)).await;
    let (end, took) = run(&table, Op::Chat, Some(MINUTE)).await;
    let Outgoing::Nack { retry, why, .. } = end else {
        panic!("{end:?}");
    };
    assert_eq!((retry, why.code), (LATE, ErrorCode::DeadlineExceeded));
    assert_eq!(took.as_secs(), 60);
    let (end, _) = run(&table, Op::Chat, Some(2 * LIMIT)).await;
    assert!(failure(&end).1.message.contains("--job-limit"), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_gives_up_just_at_the_limit_is_tried_again() {
    let silent = EngineError::Broken("it did not begin its answer in time".into());
    let late = LIMIT + Duration::from_millis(1);
    let table = table(Script::of(vec![(late, Err(silent))]), Some(LIMIT)).await;
    let (end, _) = run(&table, Op::Chat, None).await;
    let Outgoing::Nack { retry, why, .. } = end else {
        panic!("{end:?}");
    };
    assert_eq!(
        (retry, why.code),
        (Retry::AfterMs(0), ErrorCode::EngineFailed)
    );
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_answers_nothing_until_the_limit_again_and_again_gets_no_more_jobs() {
    let table = table(Script::of(Vec::new()), Some(LIMIT)).await;
    for job in 1..=5 {
        assert_eq!(table.free().0, 1, "before job {job}");
        let (end, _) = run(&table, Op::Chat, None).await;
        let (lines, error) = failure(&end);
        assert_eq!((lines, error.code), (0, ErrorCode::DeadlineExceeded));
    }
    assert_eq!(table.free().0, 0);
    let problem = table.activity().borrow().engine.problem.clone();
    assert!(problem.contains("1800 s"), "{problem}");
}
