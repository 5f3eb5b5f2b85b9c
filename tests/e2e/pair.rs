//! On a machine without a desktop the owner decides approvals on the command line.

use hearth_tests::{
    process::{Finished, finish},
    test_bed::TestBed,
};
use serde_json::Value;

use crate::pausing::{Client, TOGGLE};

/// Sends a command to pause or resume, and returns the id of its approval.
async fn asks(dock: &mut Client) -> String {
    dock.send(TOGGLE).await;
    let answer = dock.next_of("error").await;
    assert_eq!(answer["code"], "approval_required", "{answer}");
    answer["approval"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_program_is_let_in_once_for_good_and_not_at_all_as_its_owner_says_with_hearth_pair() {
    let (bed, _ollama) = TestBed::scripted().await;
    let pair = async |args: &[&str]| -> Finished {
        let done = finish(bed.hearth(&[&["pair"], args].concat())).await;
        assert!(done.status.success(), "{args:?}: {}", done.stderr);
        done
    };
    let list = async || -> Value {
        serde_json::from_str(&pair(&["list", "--json"]).await.stdout).unwrap()
    };
    assert!(
        pair(&["list"])
            .await
            .stdout
            .contains("no program is waiting")
    );

    let mut dock = Client::open(&bed, None, None).await.unwrap();
    let once = asks(&mut dock).await;
    let waiting = list().await["waiting"].clone();
    assert_eq!(waiting[0]["id"], *once, "{waiting}");
    assert_eq!(waiting[0]["command"], "toggle_monitoring");
    assert_eq!(bed.status().await["monitoring"], true);
    pair(&["approve", &once]).await;
    dock.next_of("ack").await;
    bed.until("paused").await;
    assert_eq!(list().await["allowed"], Value::Array(Vec::new()));
    // An approval that is over is refused with a message.
    let late = finish(bed.hearth(&["pair", "approve", &once])).await;
    assert!(!late.status.success());
    assert_eq!(late.stderr.lines().count(), 1, "{}", late.stderr);

    // The first approval was for one command; a permanent one holds until it is revoked.
    let good = asks(&mut dock).await;
    pair(&["approve", &good, "--always"]).await;
    dock.next_of("granted").await;
    dock.next_of("ack").await;
    bed.until("ready").await;
    dock.send(TOGGLE).await;
    dock.next_of("ack").await;
    bed.until("paused").await;
    let allowed = list().await["allowed"][0]["id"].clone();
    let shown = pair(&["list"]).await.stdout;
    assert!(shown.starts_with("allowed  "), "{shown}");
    pair(&["revoke", allowed.as_str().unwrap()]).await;
    assert_eq!(list().await["allowed"], Value::Array(Vec::new()));

    let no = asks(&mut dock).await;
    pair(&["deny", &no]).await;
    let refused = dock.next_of("error").await;
    assert_eq!(refused["code"], "approval_denied", "{refused}");
    bed.until("paused").await;
}
