//! The cost of translating a token to another API, compared with passing Ollama's line on.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use bytes::Bytes;
use dialect::{
    Answer, Named,
    anthropic::Message,
    openai::{Completion, ResponseAnswer, ResponseRequest, TextCompletion},
};
use proto::{JobId, Timestamp};
use serde::Deserialize;

use crate::stats::{Figure, Goal, Sample};

/// Lines per answer.
const LINES: usize = 256;
/// Answers per measurement; the kernel measures a thread's time in milliseconds.
const ANSWERS: usize = 200;
/// Number of measurements; the median counts.
const ROUNDS: usize = 15;

/// Produces the output for each line of one answer.
type Words = Box<dyn FnMut(&[u8]) -> anyhow::Result<Bytes>>;

/// One API's output.
struct Voice {
    name: &'static str,
    log: Vec<Bytes>,
    begin: Box<dyn Fn() -> Words>,
    /// Nanoseconds of this thread per line: without and with writing.
    made: Vec<f64>,
    written: Vec<f64>,
}

/// Measures translating and writing a line, compared with checking, copying and writing it.
pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    let request = ResponseRequest::parse(br#"{"input":"x"}"#);
    let request = request.map_err(|error| anyhow::anyhow!(error.message))?;
    let mut voices = [
        Voice::new("native", chat(), || Box::new(|line| Ok(passed_on(line)))),
        Voice::new("chat completion", chat(), || {
            events(Completion::new(named(), true))
        }),
        Voice::new("text completion", text(), || {
            events(TextCompletion::new(named(), true))
        }),
        Voice::new("response", chat(), move || {
            events(ResponseAnswer::new(named(), &request))
        }),
        Voice::new("message", chat(), || events(Message::new(named()))),
    ];
    let mut socket = drained()?;
    for _ in 0..ROUNDS {
        for voice in &mut voices {
            voice.speak(&mut socket)?;
        }
    }
    let [native, others @ ..] = voices;
    let (made, written) = native.medians();
    let beside = |voice: Voice| {
        let (own_made, own_written) = voice.medians();
        Figure {
            name: format!("CPU per token as {} / native", voice.name),
            value: own_written / written,
            goal: Goal::AtMost(1.5),
            detail: format!(
                "{own_written:.0} against {written:.0} ns; without the write {own_made:.0} \
                 against {made:.0}"
            ),
        }
    };
    Ok(others.map(beside).into())
}

impl Voice {
    fn new(name: &'static str, log: Vec<Bytes>, begin: impl Fn() -> Words + 'static) -> Self {
        Self {
            name,
            log,
            begin: Box::new(begin),
            made: Vec::new(),
            written: Vec::new(),
        }
    }

    fn speak(&mut self, socket: &mut TcpStream) -> anyhow::Result<()> {
        let made = self.per_line(|said| {
            std::hint::black_box(said);
            Ok(())
        })?;
        let written = self.per_line(|said| Ok(socket.write_all(&said)?))?;
        self.made.push(made);
        self.written.push(written);
        Ok(())
    }

    fn per_line(&self, mut take: impl FnMut(Bytes) -> anyhow::Result<()>) -> anyhow::Result<f64> {
        let before = cpu_nanos()?;
        for _ in 0..ANSWERS {
            let mut words = (self.begin)();
            for line in &self.log {
                take(words(line)?)?;
            }
        }
        let spent = cpu_nanos()? - before;
        #[expect(
            clippy::cast_precision_loss,
            reason = "at most seconds, as nanoseconds"
        )]
        let per_line = spent as f64 / (ANSWERS * self.log.len()) as f64;
        Ok(per_line)
    }

    fn medians(&self) -> (f64, f64) {
        let median = |of: &[f64]| of.iter().copied().collect::<Sample>().median();
        (median(&self.made), median(&self.written))
    }
}

/// A connection whose data a thread reads and discards until it is closed.
fn drained() -> anyhow::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    socket.set_nodelay(true)?;
    let (mut other, _) = listener.accept()?;
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while other.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    Ok(socket)
}

/// The check that the relay makes on every line that it passes on unchanged.
fn is_last(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Line {
        done: bool,
    }
    serde_json::from_slice(line).is_ok_and(|line: Line| line.done)
}

fn passed_on(line: &[u8]) -> Bytes {
    std::hint::black_box(is_last(line));
    [line, b"\n"].concat().into()
}

fn events<A: Answer>(mut answer: A) -> Words {
    Box::new(move |line| {
        let events = answer.events(line);
        events.map_err(|error| anyhow::anyhow!(error.message))
    })
}

fn named() -> Named {
    Named {
        job: JobId([7; 16]),
        model: "smollm2:135m".into(),
        created: Timestamp(0),
    }
}

fn chat() -> Vec<Bytes> {
    log(|token| format!(r#""message":{{"role":"assistant","content":{token}}}"#))
}

fn text() -> Vec<Bytes> {
    log(|token| format!(r#""response":{token}"#))
}

/// The lines of an answer as Ollama writes them; `says` formats the token.
fn log(says: impl Fn(&str) -> String) -> Vec<Bytes> {
    const TOKENS: [&str; 8] = [
        r#""The""#,
        r#"" sky""#,
        r#"" is""#,
        r#"" blue""#,
        r#"",""#,
        r#"" because""#,
        r#""\n""#,
        r#"" światło""#,
    ];
    let line = |token: &&str| {
        let head = r#""model":"smollm2:135m","created_at":"2026-11-22T04:07:23.866229834Z""#;
        Bytes::from(format!("{{{head},{},\"done\":false}}", says(token)))
    };
    TOKENS.iter().cycle().take(LINES).map(line).collect()
}

/// The CPU time of this thread so far.
fn cpu_nanos() -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = stat.split_whitespace().next().unwrap_or_default();
    Ok(first.parse()?)
}
