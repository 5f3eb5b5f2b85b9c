//! H1: durable `POST /api/jobs`, compared with the same route on a queue in memory, and with
//! straightforward routes that commit each request on its own.

use std::{path::Path, sync::Arc};

use axum::{Json, Router, routing::post, serve::ListenerExt as _};
use hearth_tests::{
    process::{Home, Process, binary},
    test_bed::{TestBed, client},
};
use parking_lot::Mutex;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::spawn_blocking,
};

use crate::{
    commit::{SLICE, slice},
    cycle::connections,
    stats::{Figure, Goal, Sample},
};

/// Number of rounds of short slices, so that no hundred thousand jobs come to wait in one.
const ROUNDS: u32 = 6;
/// Limits high enough not to be measured.
const ROOM: [&str; 4] = ["--queued-max", "1000000", "--account-queued-max", "1000000"];

/// Measures with 64 and with 16 callers.
///
/// # Errors
/// If a relay refuses a request.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let durable = TestBed::relay_with(&ROOM, "none").await;
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
    let folder = tempfile::tempdir()?;
    let mut naive = Vec::new();
    for (connections, name) in [(64, "naive.db"), (1, "one.db")] {
        let url = commits_each(&folder.path().join(name), connections).await?;
        naive.push(http.post(url).json(&body));
    }
    let mut figures = Vec::new();
    for (callers, goal) in [(64, 0.50), (16, 0.28)] {
        let (mut ratios, mut floors, mut queues) = (vec![], vec![], vec![]);
        let mut naives = [(vec![], vec![]), (vec![], vec![])];
        for _ in 0..ROUNDS {
            let low = slice(callers, SLICE, sender(&floor)).await?.per_second;
            let high = slice(callers, SLICE, sender(&queue)).await?.per_second;
            for (route, (ratios, rates)) in naive.iter().zip(&mut naives) {
                let rate = slice(callers, SLICE, sender(route)).await?.per_second;
                ratios.push(high / rate);
                rates.push(rate);
            }
            ratios.push(high / low);
            floors.push(low);
            queues.push(high);
        }
        let median = |values: Vec<f64>| values.into_iter().collect::<Sample>().median();
        figures.push(Figure {
            name: format!("H1 POST /api/jobs durable / in memory, c{callers}"),
            value: median(ratios),
            goal: Goal::AtLeast(goal),
            detail: format!(
                "{:.0}/s against {:.0}/s",
                median(queues.clone()),
                median(floors)
            ),
        });
        let goal = if callers == 64 {
            Goal::AtLeast(8.0)
        } else {
            Goal::None
        };
        let peers = [
            ("naive SQLite", goal),
            ("naive SQLite with one connection", Goal::None),
        ];
        for ((name, goal), (ratios, rates)) in peers.into_iter().zip(naives) {
            figures.push(Figure {
                name: format!("H1 the same / {name}, c{callers}"),
                value: median(ratios),
                goal,
                detail: format!(
                    "{:.0}/s against {:.0}/s",
                    median(queues.clone()),
                    median(rates)
                ),
            });
        }
    }
    Ok(figures)
}

/// A straightforward route: reads the request, and inserts it with its own commit, over one of so
/// many connections that is free. Several are serialized by the file lock, as in Q2; one by the
/// route.
async fn commits_each(path: &Path, count: usize) -> anyhow::Result<String> {
    let table = "
        CREATE TABLE IF NOT EXISTS jobs (seq INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;";
    let all = Arc::new(connections(path, count, table)?);
    let submit = move |Json(job): Json<Value>| {
        let all = Arc::clone(&all);
        async move {
            let body = job.to_string();
            let inserted = spawn_blocking(move || {
                // With as many connections as callers, one is free.
                let free = all.iter().find_map(Mutex::try_lock);
                let conn = free.unwrap_or_else(|| all[0].lock());
                conn.prepare_cached("INSERT INTO jobs (body) VALUES (?1)")?
                    .execute([body.as_bytes()])
            });
            match inserted.await {
                Ok(Ok(_)) => StatusCode::ACCEPTED,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = Router::new().route("/api/jobs", post(submit));
    // Ends with the program.
    tokio::spawn(async move { axum::serve(listener.tap_io(no_delay), routes).await });
    Ok(format!("http://{address}/api/jobs"))
}

fn no_delay(socket: &mut TcpStream) {
    // A closed socket is noticed by its reader.
    let _ = socket.set_nodelay(true);
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
