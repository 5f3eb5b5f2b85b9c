//! H1: `POST /api/jobs`, durable, against the same route over a queue in memory.

use hearth_tests::{
    process::{Home, Process, binary},
    stand::{Stand, client},
};
use serde_json::json;

use crate::{
    commit::slice,
    stats::{Figure, Goal, Sample},
};

const ROUNDS: u32 = 6;
/// So that no cap is what is measured.
const ROOM: [&str; 4] = ["--queued-max", "1000000", "--account-queued-max", "1000000"];

/// Measures at 64 and at 16 callers.
///
/// # Errors
/// If a relay refuses what it should take.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let durable = Stand::relay_with(&ROOM, "none").await;
    let (home, http) = (Home::new(), client());
    let mut command = home.command(binary("hearth"));
    command
        .args(["relay", "--store", "memory:", "--insecure-dev"])
        .args(["--listen", "127.0.0.1:0", "--key-rate", "0"])
        .args(ROOM);
    let mut memory = Process::start("the relay without a disk", command);
    let address = memory.says("listening on http://").await;
    let body = json!({
        "op": "chat",
        "deadline_ms": 600_000,
        "body": {"model": "tiny", "messages": [{"role": "user", "content": "x".repeat(200)}]},
    });
    let floor = http.post(format!("http://{address}/api/jobs")).json(&body);
    let queue = durable.post("/api/jobs", &body);
    let mut figures = Vec::new();
    for (callers, goal) in [(64, 0.50), (16, 0.28)] {
        let (mut ratios, mut floors, mut queues) = (vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let low = slice(callers, sender(&floor)).await?.per_second;
            let high = slice(callers, sender(&queue)).await?.per_second;
            ratios.push(high / low);
            floors.push(low);
            queues.push(high);
        }
        let median = |values: Vec<f64>| values.into_iter().collect::<Sample>().median();
        figures.push(Figure {
            name: format!("H1 POST /api/jobs durable / in memory, c{callers}"),
            value: median(ratios),
            goal: Goal::AtLeast(goal),
            detail: format!("{:.0}/s against {:.0}/s", median(queues), median(floors)),
        });
    }
    Ok(figures)
}

fn sender(
    request: &reqwest::RequestBuilder,
) -> impl Fn() -> futures_util::future::BoxFuture<'static, anyhow::Result<()>> + Clone + Send + 'static
{
    let request = request.try_clone().map(std::sync::Arc::new);
    move || {
        let request = request.as_ref().and_then(|request| request.try_clone());
        Box::pin(async move {
            let request = request.ok_or_else(|| anyhow::anyhow!("a body that can be sent once"))?;
            let reply = request.send().await?.error_for_status()?;
            reply.bytes().await?;
            Ok(())
        })
    }
}
