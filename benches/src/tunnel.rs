//! T1, T2 and the total overhead: first tokens and bursts through a real relay and agent.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use engine::Engine as _;
use engine_builtin::Builtin;
use futures_util::{StreamExt as _, TryStreamExt as _};
use hearth_tests::{
    proxy::Proxy,
    scripted_ollama::{Answer, ScriptedOllama},
    test_bed::TestBed,
};
use reqwest::RequestBuilder;
use serde_json::json;

use crate::stats::{Figure, Goal, Sample};

/// One-way delay; the round trip takes twice this.
const ONE_WAY: Duration = Duration::from_millis(20);
const BURST: usize = 200;

/// A relay and an agent with `engine` behind it; the agent connects through a slow connection.
struct Way {
    bed: TestBed,
    _line: Proxy,
}

impl Way {
    async fn start(engine: &str, one_way: Duration) -> anyhow::Result<Self> {
        let mut bed = TestBed::relay_only(engine).await;
        let line = Proxy::start(bed.address, one_way).await?;
        bed.through = Some(line.address());
        bed.slots = 16;
        bed.start_agent().await;
        bed.until("ready").await;
        Ok(Self { bed, _line: line })
    }

    /// A client with its own connection, and its request.
    fn stranger(&self, model: &str, tokens: u32) -> anyhow::Result<RequestBuilder> {
        let asked = stranger(&self.bed.url("/api/chat"), model, tokens)?;
        Ok(asked.bearer_auth(&self.bed.requester))
    }
}

/// The timing of one streamed request.
#[derive(Debug, Clone, Copy)]
struct Timed {
    first: Duration,
    whole: Duration,
    lines: usize,
}

/// A request over a new connection. Creating the client takes milliseconds, which must not be
/// measured or delay other requests.
fn stranger(url: &str, model: &str, tokens: u32) -> anyhow::Result<RequestBuilder> {
    let client = engine::client_builder(&url.parse()?).build()?;
    let options = json!({ "temperature": 0, "num_predict": tokens, "seed": 1 });
    let message = json!({ "role": "user", "content": "Tell a long story about a fireplace." });
    let body = json!({ "model": model, "messages": [message], "options": options });
    Ok(client.post(url).json(&body))
}

async fn ask(request: RequestBuilder) -> anyhow::Result<Timed> {
    let begun = Instant::now();
    let answer = request.send().await?.error_for_status()?;
    let mut stream = answer.bytes_stream();
    let (mut first, mut lines) = (None, 0);
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        first.get_or_insert_with(|| begun.elapsed());
        lines += piece.iter().filter(|byte| **byte == b'\n').count();
    }
    let first = first.context("the answer is empty")?;
    Ok(Timed {
        first,
        whole: begun.elapsed(),
        lines,
    })
}

/// T1: the first token over a connection with a round trip of 40 ms.
///
/// # Errors
/// If the relay or agent does not start.
pub(crate) async fn first_token() -> anyhow::Result<Vec<Figure>> {
    let ollama = ScriptedOllama::start().await?;
    let way = Way::start(&format!("ollama:{}", ollama.url()), ONE_WAY).await?;
    let round_trip = ONE_WAY.as_secs_f64() * 2000.0;
    let mut cold = Vec::new();
    for _ in 0..20 {
        cold.push(ask(way.stranger("tiny", 8)?).await?.first);
    }
    let cold: Sample = cold.into_iter().collect();
    let crowd: Vec<RequestBuilder> = (0..64)
        .map(|_| way.stranger("tiny", 8))
        .collect::<anyhow::Result<_>>()?;
    let crowd: Vec<Timed> = futures_util::stream::iter(crowd.into_iter().map(ask))
        .buffer_unordered(16)
        .try_collect()
        .await?;
    let crowd: Sample = crowd.into_iter().map(|timed| timed.first).collect();
    Ok(vec![
        Figure {
            name: "T1 first token cold, p50 / 40 ms RTT".to_owned(),
            value: cold.median() / round_trip,
            goal: Goal::AtMost(1.15),
            detail: format!("p50 {:.1} ms of 20", cold.median()),
        },
        Figure {
            name: "T1 first token, 16 at once, p99 / RTT".to_owned(),
            value: crowd.percentile(0.99) / round_trip,
            goal: Goal::AtMost(1.35),
            detail: format!(
                "p50 {:.1} ms, p99 {:.1} ms of 64",
                crowd.median(),
                crowd.percentile(0.99)
            ),
        },
    ])
}

fn burst() -> Answer {
    let line = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"x"},"done":false}"#;
    let done = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#;
    Answer::lines(std::iter::repeat_n(line, BURST).chain([done]))
}

/// T2: two hundred tokens at once, compared with the engine asked directly.
///
/// # Errors
/// If the relay or agent does not start.
pub(crate) async fn bursts() -> anyhow::Result<Vec<Figure>> {
    let ollama = ScriptedOllama::start().await?;
    let way = Way::start(&format!("ollama:{}", ollama.url()), Duration::ZERO).await?;
    let direct_url = format!("{}/api/chat", ollama.url());
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..60 {
        ollama.script("/api/chat", burst());
        direct.push(ask(stranger(&direct_url, "tiny", 8)?).await?.whole);
        ollama.script("/api/chat", burst());
        let timed = ask(way.stranger("tiny", 8)?).await?;
        anyhow::ensure!(timed.lines == BURST + 1, "{} lines came", timed.lines);
        through.push(timed.whole);
    }
    let (direct, through): (Sample, Sample) =
        (direct.into_iter().collect(), through.into_iter().collect());
    Ok(vec![
        Figure {
            name: "T2 burst of 200 tokens, p50 / direct".to_owned(),
            value: through.median() / direct.median(),
            goal: Goal::AtMost(3.0),
            detail: format!(
                "{:.2} ms against {:.2} ms",
                through.median(),
                direct.median()
            ),
        },
        Figure {
            name: "T2 slowest of 60 bursts, ms".to_owned(),
            value: through.percentile(1.0),
            goal: Goal::AtMost(30.0),
            detail: "a Nagle stall would be 40 ms and more".to_owned(),
        },
    ])
}

/// The real model through relay and agent, compared with the same model in this process.
///
/// # Errors
/// If the model is missing.
pub(crate) async fn model() -> anyhow::Result<Vec<Figure>> {
    const TOKENS: u32 = 96;
    let way = Way::start("builtin", Duration::ZERO).await?;
    let file = agent::Settings::try_from(agent::Args::default())?.model;
    let engine = Builtin::open(&file, engine_builtin::Settings::default())?;
    let name = engine
        .report()
        .await?
        .models
        .first()
        .context("no model")?
        .name
        .clone();
    let (mut firsts, mut rates) = (Vec::new(), Vec::new());
    let (mut through, mut direct) = (Vec::new(), Vec::new());
    for round in 0..6 {
        let there = ask(way.stranger(name.as_str(), TOKENS)?).await?;
        let here = ask_engine(&engine, name.as_str(), TOKENS).await?;
        if round > 0 {
            firsts.push(there.first.as_secs_f64() / here.first.as_secs_f64());
            rates.push(rate(there) / rate(here));
            through.push(rate(there));
            direct.push(rate(here));
        }
    }
    let [firsts, rates, through, direct] =
        [firsts, rates, through, direct].map(|values| values.into_iter().collect::<Sample>());
    Ok(vec![
        Figure {
            name: "first token of the real model / direct".to_owned(),
            value: firsts.median(),
            goal: Goal::None,
            detail: "median of 5 pairs, warm".to_owned(),
        },
        Figure {
            name: "tokens/s of the real model / direct".to_owned(),
            value: rates.median(),
            goal: Goal::None,
            detail: format!(
                "{:.1} against {:.1} tokens/s",
                through.median(),
                direct.median()
            ),
        },
    ])
}

fn rate(timed: Timed) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a hundred lines")]
    let lines = timed.lines.saturating_sub(1) as f64;
    lines / (timed.whole - timed.first).as_secs_f64().max(1e-9)
}

async fn ask_engine(engine: &Builtin, model: &str, tokens: u32) -> anyhow::Result<Timed> {
    let options = json!({ "temperature": 0, "num_predict": tokens, "seed": 1 });
    let message = json!({ "role": "user", "content": "Tell a long story about a fireplace." });
    let body = json!({ "model": model, "messages": [message], "options": options });
    let begun = Instant::now();
    let mut stream = engine
        .start(proto::Op::Chat, body.to_string().into())
        .await?;
    let (mut first, mut lines) = (None, 0);
    while let Some(line) = stream.next().await {
        line?;
        first.get_or_insert_with(|| begun.elapsed());
        lines += 1;
    }
    let first = first.context("the answer is empty")?;
    Ok(Timed {
        first,
        whole: begun.elapsed(),
        lines,
    })
}
