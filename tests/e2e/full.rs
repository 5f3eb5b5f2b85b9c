//! A relay whose disk fills up and gets room again.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use hearth_tests::{
    not_tried,
    process::PATIENCE,
    scripted_ollama::{Answer, Gate, ScriptedOllama, Step},
    test_bed::TestBed,
};
use proto::JobId;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

const WORD: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"one"},"done":false}"#;
const DONE: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#;
/// Room for the relay's reserve and some jobs.
const SIZE: &str = "size=40m";
const FILLS: usize = 3;

/// A small file system.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", SIZE, "hearth-test"])
            .arg(&at);
        let mounted = mount.output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(at));
        }
        not_tried("only root may mount a small file system to fill");
        None
    }

    /// Fills the file system.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut filler = fs::File::create(&path).unwrap();
        for part in [vec![1; 64 * 1024], vec![1; 512]] {
            while filler.write_all(&part).is_ok() {}
        }
        path
    }
}

/// Makes a file shorter, so that there is room for a few jobs.
fn cut(file: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - bytes).unwrap();
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(&self.0)
            .status();
        if !std::thread::panicking() {
            assert!(unmounted.unwrap().success());
        }
    }
}

fn large() -> Value {
    let message = json!({"role": "user", "content": "x".repeat(200_000)});
    json!({"op": "chat", "body": {"model": "tiny", "messages": [message]}})
}

async fn submitted(bed: &TestBed) -> reqwest::Response {
    bed.post("/api/jobs", &large()).send().await.unwrap()
}

/// Submits until the relay refuses. Returns the jobs that it accepted before that, and the refusal.
async fn until_refused(bed: &TestBed) -> (Vec<JobId>, reqwest::Response) {
    let mut accepted = Vec::new();
    let refused = async {
        loop {
            let reply = submitted(bed).await;
            if !reply.status().is_success() {
                return reply;
            }
            let job: Value = reply.json().await.unwrap();
            accepted.push(serde_json::from_value(job["id"].clone()).unwrap());
        }
    };
    let refused = timeout(PATIENCE, refused).await;
    (accepted, refused.expect("the disk never became full"))
}

#[tokio::test]
async fn a_relay_on_a_full_disk_refuses_what_is_new_ends_what_runs_and_goes_on_when_there_is_room()
{
    let ollama = ScriptedOllama::start().await.unwrap();
    let mut bed = TestBed::relay_only(&format!("ollama:{}", ollama.url())).await;
    let Some(small) = Small::mount(bed.home.path().join("small")) else {
        return;
    };
    // The same relay with its store, and so its keys, on the small disk.
    let relay = bed.relay.take().unwrap();
    assert!(relay.terminate().await.success());
    let store = hearth_tests::test_bed::store(&bed.home);
    let store = store.strip_prefix("sqlite:").unwrap();
    fs::copy(store, small.0.join("relay.db")).unwrap();
    fs::remove_file(store).unwrap();
    std::os::unix::fs::symlink(small.0.join("relay.db"), store).unwrap();
    bed.start_relay().await;
    bed.start_agent().await;
    bed.until("ready").await;
    ollama.settle("/api/chat", Answer::lines([WORD, DONE]));
    for _ in 0..FILLS {
        let gate = Gate::default();
        let answer = Answer::begin()
            .send_lines([WORD])
            .then(Step::Wait(gate.clone()));
        ollama.script("/api/chat", answer.send_lines([DONE]).then(Step::Finish));
        let running = bed.submit("x").await.unwrap();
        let filler = small.fill();
        cut(&filler, 1024 * 1024);
        let (accepted, refused) = until_refused(&bed).await;
        assert!(!accepted.is_empty(), "it refused at once");
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        let refused: Value = refused.json().await.unwrap();
        assert_eq!(refused["error"]["code"], "disk_full", "{refused}");
        let listed = bed.get("/api/jobs").send().await.unwrap();
        assert_eq!(listed.status(), 200, "what is there can be read");
        gate.open();
        let answered = bed.answer(running).await;
        assert_eq!(answered.text, "one", "{answered:?}");
        for job in accepted {
            let answered = bed.answer(job).await;
            assert_eq!(answered.text, "one", "{answered:?}");
        }
        fs::remove_file(filler).unwrap();
        let begun = Instant::now();
        while !submitted(&bed).await.status().is_success() {
            assert!(begun.elapsed() < PATIENCE, "it refuses for ever");
        }
        bed.relay.as_ref().unwrap().id().expect("the same relay");
    }
    // The relay must end before its disk is unmounted.
    let ended = bed.relay.take().unwrap().terminate();
    timeout(PATIENCE, ended).await.unwrap();
}
