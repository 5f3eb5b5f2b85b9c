//! Failures of the engine within a job.

use ::engine::EngineError;
use proto::{
    End, ErrorCode, JobError,
    status::HopState,
    worker::{RelayMessage, Retry, WorkerMessage},
};

use super::{
    BODY,
    jobs::{closed, end, nack, ready},
    relay::{Heard, token},
};

#[tokio::test]
async fn an_engine_that_fails_before_its_first_line_gives_the_job_back_for_another_try() {
    let (mut scene, mut link) = ready().await;
    scene.engine.refuse(EngineError::Busy("full".into()));
    link.lease(token(1, 1), BODY).await;
    let (retry, code) = nack(&mut link).await;
    assert!(matches!(retry, Retry::AfterMs(_)), "{retry:?}");
    assert_eq!(code, ErrorCode::EngineUnavailable);
    link.say(&closed(1)).await;
    link.lease(token(2, 1), BODY).await;
    let asked = scene.asked().await;
    asked.fail(EngineError::Broken("cut".into())).await;
    let (retry, code) = nack(&mut link).await;
    assert!(matches!(retry, Retry::AfterMs(_)), "{retry:?}");
    assert_eq!(code, ErrorCode::EngineFailed);
}

#[tokio::test]
async fn an_engine_that_fails_within_its_answer_fails_the_job_with_its_words() {
    let (mut scene, mut link) = ready().await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    asked.say("one").await;
    asked
        .fail(EngineError::Broken("out of memory".into()))
        .await;
    link.line().await;
    let (lines, End::Failed { error }) = end(&mut link).await else {
        panic!("it must fail");
    };
    assert_eq!((lines, error.code), (1, ErrorCode::EngineFailed));
    assert!(error.message.contains("out of memory"), "{}", error.message);
}

#[tokio::test]
async fn a_refusal_of_the_engine_is_the_requesters_with_its_status() {
    let (scene, mut link) = ready().await;
    scene.engine.refuse(EngineError::Refused {
        status: 400,
        message: "does not support thinking".into(),
    });
    link.lease(token(1, 1), BODY).await;
    let (lines, End::Failed { error }) = end(&mut link).await else {
        panic!("it must fail");
    };
    assert_eq!((lines, error.code), (0, ErrorCode::EngineRefused));
    assert_eq!(error.engine_status, Some(400));
    assert_eq!(error.message, "does not support thinking");
}

#[tokio::test]
async fn a_failure_of_the_engines_own_before_its_first_line_is_tried_again() {
    let (scene, mut link) = ready().await;
    scene.engine.refuse(EngineError::Refused {
        status: 500,
        message: "llama runner process has terminated".into(),
    });
    link.lease(token(1, 1), BODY).await;
    let Heard::Message(WorkerMessage::Nack {
        retry,
        code,
        message,
        engine_status,
        ..
    }) = link.hear_of_job().await
    else {
        panic!("it must be given back");
    };
    assert_eq!((retry, code), (Retry::AfterMs(0), ErrorCode::EngineRefused));
    assert_eq!(engine_status, Some(500), "told as it was if it stays so");
    assert_eq!(message, "llama runner process has terminated");
}

#[tokio::test]
async fn one_job_that_is_refused_again_and_again_does_not_stop_leasing_and_five_jobs_do() {
    let (scene, mut link) = ready().await;
    let mut refuse = async |job, attempt| {
        scene.engine.refuse(EngineError::Refused {
            status: 500,
            message: "out of luck".into(),
        });
        link.lease(token(job, attempt), BODY).await;
        assert!(matches!(nack(&mut link).await.0, Retry::AfterMs(_)));
        link.say(&RelayMessage::Closed {
            token: token(job, attempt),
            code: None,
        })
        .await;
    };
    for attempt in 1..=8 {
        refuse(1, attempt).await;
    }
    let now = scene.handle.activity().borrow().engine.clone();
    assert_eq!(now.state, HopState::Up, "{}", now.problem);
    for job in 2..=5 {
        refuse(job, 1).await;
    }
    scene
        .until(|now| now.engine.problem.contains("out of luck"))
        .await;
}

#[tokio::test]
async fn what_a_model_writes_that_nobody_can_use_is_tried_once_more_and_is_no_fault_of_the_engine()
{
    let (scene, mut link) = ready().await;
    let said = "the arguments of a call are not a JSON object";
    let unusable = || EngineError::Unusable(said.into());
    for job in 1..=8 {
        scene.engine.refuse(unusable());
        link.lease(token(job, 1), BODY).await;
        assert!(matches!(nack(&mut link).await.0, Retry::AfterMs(_)));
        link.say(&closed(job)).await;
        scene.engine.refuse(unusable());
        link.lease(token(job, 2), BODY).await;
        let error = JobError::new(ErrorCode::EngineFailed, said);
        assert_eq!(end(&mut link).await, (0, End::Failed { error }));
        link.say(&RelayMessage::Closed {
            token: token(job, 2),
            code: None,
        })
        .await;
    }
    let now = scene.handle.activity().borrow().engine.clone();
    assert_eq!(now.state, HopState::Up, "{}", now.problem);
}
