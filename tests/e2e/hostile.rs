//! Hostile requests: the relay refuses them and does not fail.

use std::time::Duration;

use hearth_tests::{
    hostile::{by_hand, by_the_document, operations, paths_beyond_use},
    test_bed::{TestBed, create_key},
};

/// Disables the rate limits that would refuse most requests before they reach their target.
const OPEN: &[&str] = &["--failures-per-minute", "0"];

/// A key of each kind.
async fn keys(bed: &TestBed) -> Vec<String> {
    let mut keys = vec![bed.requester.clone(), bed.worker.clone()];
    for scope in ["enqueue", "read", "work", "admin"] {
        let name = format!("only-{scope}");
        keys.push(create_key(&bed.home, &["--name", &name, "--scope", scope]).await);
    }
    keys
}

#[tokio::test]
async fn hostile_requests_are_refused_and_break_nothing() {
    let (bed, ollama) = TestBed::scripted_with(OPEN, 1).await;
    let keys = keys(&bed).await;
    let operations = operations(&bed.http, bed.address).await.unwrap();
    let assault = by_hand(bed.address, &keys, &operations, 1_500, 3).await;
    assert_eq!(assault.requests, 1_500);
    assert!(assault.broken.is_empty(), "{assault}");
    assert_eq!(
        paths_beyond_use(&ollama),
        [""; 0],
        "an engine is asked for nothing else"
    );
    let healthy = bed.http.get(bed.url("/readyz")).send().await.unwrap();
    assert_eq!(healthy.status(), 200);
}

#[tokio::test]
async fn what_schemathesis_makes_of_the_document_is_answered_as_the_document_says() {
    let (bed, _ollama) = TestBed::scripted_with(OPEN, 1).await;
    let args = [
        "--name", "all", "--scope", "enqueue", "--scope", "read", "--scope", "work",
    ];
    let all = create_key(&bed.home, &[&args[..], &["--scope", "admin"]].concat()).await;
    let patience = Duration::from_secs(180);
    let assault = by_the_document(bed.address, Some(&all), 3, 5, patience)
        .await
        .unwrap();
    assert!(assault.broken.is_empty(), "{assault}");
    assert!(assault.requests > 100, "{assault}");
}
