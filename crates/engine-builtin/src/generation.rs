//! Generating one answer: the prompt, the tokens, the stop conditions and the lines.

use std::time::{Duration, Instant};

use engine::EngineError;
use llama_cpp_2::{model::LlamaModel, token::LlamaToken};

use crate::{
    line::{DoneReason, LineWriter, Metrics},
    prompt,
    request::{Request, Work},
    sampler::Sampler,
    session::{Reading, Session},
    stop::Stop,
    ticket::Answer,
    utf8::Utf8,
};

/// An answer that is being generated.
pub(crate) struct Generation<'s, 'm> {
    pub(crate) model: &'m LlamaModel,
    pub(crate) session: &'s mut Session<'m>,
    pub(crate) lines: LineWriter,
    pub(crate) asked: Instant,
    /// Time it took to load the model for this request.
    pub(crate) load: Duration,
}

/// Counts tokens while an answer is generated.
pub(crate) trait Counter {
    /// The next `tokens` tokens of the prompt are processed.
    fn read(&mut self, tokens: usize);
    /// Another token was generated.
    fn written(&mut self);
}

/// The contents of the last line.
struct End {
    text: String,
    reason: DoneReason,
    context: Option<Vec<i32>>,
    metrics: Metrics,
}

/// An answer that was refused or aborted; the session is then reset.
pub(crate) struct Failed {
    pub(crate) answer: Answer,
    pub(crate) error: EngineError,
}

impl Generation<'_, '_> {
    /// Generates the whole answer, or until nobody waits for it.
    pub(crate) fn run(
        mut self,
        request: &Request,
        mut answer: Answer,
        count: &mut impl Counter,
    ) -> Result<(), Failed> {
        match self.answer(request, &mut answer, count) {
            Ok(Some(end)) => {
                let context = end.context.as_deref();
                answer.last(self.lines.done(&end.text, end.reason, context, end.metrics));
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(Failed { answer, error }),
        }
    }

    /// Returns how the answer ended; `None` if nobody waits for it any more.
    fn answer(
        &mut self,
        request: &Request,
        answer: &mut Answer,
        count: &mut impl Counter,
    ) -> Result<Option<End>, EngineError> {
        let num_ctx = self.session.num_ctx();
        let mut tokens = prompt::tokens(self.model, &request.work, num_ctx, request.truncate)?;
        let schema = request.schema.as_deref();
        let mut sampler = Sampler::new(self.model, &request.options, schema, &tokens, num_ctx)?;
        answer.accept();

        let reading = Instant::now();
        let reading_of = |block: usize| {
            count.read(block);
            answer.is_wanted()
        };
        if self.session.read(&tokens, reading_of)? == Reading::Unwanted {
            return Ok(None);
        }
        let mut metrics = Metrics {
            load: self.load,
            prompt_tokens: tokens.len() as u64,
            prompt: reading.elapsed(),
            ..Metrics::default()
        };

        let writing = Instant::now();
        let mut text = Text::new(request);
        let reason = loop {
            let token = sampler.next(self.session.context())?;
            count.written();
            metrics.tokens += 1;
            let vocabulary = self.model.vocab();
            if vocabulary.is_eog(token) {
                break DoneReason::Stop;
            }
            tokens.push(token);
            let piece = text.push(&vocabulary.token_to_piece(token, false, None));
            if request.stream && !piece.text.is_empty() {
                answer.line(self.lines.piece(&piece.text));
            }
            if piece.stopped {
                break DoneReason::Stop;
            }
            if is_enough(metrics.tokens, request.options.num_predict) || self.session.is_full() {
                break DoneReason::Length;
            }
            if !answer.is_wanted() {
                return Ok(None);
            }
            self.session.push(token)?;
        };
        let (whole, held) = text.finish();
        if request.stream && !held.is_empty() {
            answer.line(self.lines.piece(&held));
        }
        metrics.generation = writing.elapsed();
        metrics.total = self.asked.elapsed();
        Ok(Some(End {
            text: if request.stream { String::new() } else { whole },
            reason,
            context: context(&request.work, &tokens),
            metrics,
        }))
    }
}

fn is_enough(tokens: u64, num_predict: i64) -> bool {
    u64::try_from(num_predict).is_ok_and(|most| most > 0 && tokens >= most)
}

/// Returns the `context` with which `/api/generate` can be continued.
fn context(work: &Work, tokens: &[LlamaToken]) -> Option<Vec<i32>> {
    match work {
        Work::Generate(prompt) if !prompt.raw => Some(tokens.iter().map(|token| token.0).collect()),
        Work::Generate(_) | Work::Chat(_) | Work::Load(_) | Work::Unload(_) => None,
    }
}

/// The text of an answer: complete characters, without stop strings.
struct Text {
    utf8: Utf8,
    stop: Stop,
    /// The text sent so far.
    whole: String,
    stopped: bool,
}

impl Text {
    fn new(request: &Request) -> Self {
        Self {
            utf8: Utf8::default(),
            stop: Stop::new(request.options.stop.clone()),
            whole: String::new(),
            stopped: false,
        }
    }

    fn push(&mut self, bytes: &[u8]) -> crate::stop::Passed {
        let characters = self.utf8.push(bytes);
        let passed = self.stop.push(&characters);
        self.whole.push_str(&passed.text);
        self.stopped = passed.stopped;
        passed
    }

    /// Returns the whole text, and the part of it that was still held back.
    fn finish(mut self) -> (String, String) {
        let held = if self.stopped {
            String::new()
        } else {
            self.stop.finish()
        };
        self.whole.push_str(&held);
        (self.whole, held)
    }
}
