//! The only polling loop of these tests: X servers, panels and `/proc` offer no events.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Timeout of every poll.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Polls until there is an answer.
///
/// # Panics
/// After the timeout; the message contains `what`.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "never came true: {what}");
        sleep(PAUSE).await;
    }
}
