//! The one place that asks again and again: X servers, panels and `/proc` offer no better.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long the outside world may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until there is an answer.
///
/// # Panics
/// If there is none in time; says what was waited for.
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
