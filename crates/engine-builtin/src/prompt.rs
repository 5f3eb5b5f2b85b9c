//! Prompts: applying the chat template, tokenizing, and dropping old messages that do not fit.

use engine::EngineError;
use llama_cpp_2::{
    model::{LlamaChatMessage, LlamaChatTemplate, LlamaModel},
    token::LlamaToken,
};

use crate::request::{Message, Prompt, Work, refused};

/// Converts a request to tokens that fit into a context of `num_ctx`, with room for an answer.
pub(crate) fn tokens(
    model: &LlamaModel,
    work: &Work,
    num_ctx: u32,
    truncate: bool,
) -> Result<Vec<LlamaToken>, EngineError> {
    let room = usize::try_from(num_ctx)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let tokens = match work {
        Work::Load(_) | Work::Unload(_) => Some(Vec::new()),
        Work::Chat(messages) if truncate => newest(model, messages, room)?,
        Work::Chat(messages) => of_chat(model, messages, room)?,
        Work::Generate(prompt) => of_prompt(model, prompt, room)?,
    };
    match tokens {
        Some(tokens) if tokens.is_empty() => Err(refused(400, "the prompt has no tokens")),
        Some(tokens) => Ok(tokens),
        None => Err(refused(400, TOO_LONG)),
    }
}

/// Ollama's message.
const TOO_LONG: &str = "the prompt is longer than the context length currently available to the \
    model; shorten the prompt, adjust the context length in settings, or use a model with a \
    longer context length";

/// Returns the conversation without as many of its oldest messages as necessary. System messages
/// and the last message are always kept; `None` if these alone are too long.
fn newest(
    model: &LlamaModel,
    messages: &[Message],
    room: usize,
) -> Result<Option<Vec<LlamaToken>>, EngineError> {
    let mut best = of_chat(model, messages, room)?;
    if best.is_some() {
        return Ok(best);
    }
    let (mut least, mut most) = (1, droppable(messages));
    while least <= most {
        let middle = least.midpoint(most);
        match of_chat(model, &without_oldest(messages, middle), room)? {
            Some(tokens) => (best, most) = (Some(tokens), middle - 1),
            None => least = middle + 1,
        }
    }
    Ok(best)
}

fn droppable(messages: &[Message]) -> usize {
    let old = messages.split_last().map_or(&[][..], |(_, old)| old);
    old.iter()
        .filter(|message| message.role != "system")
        .count()
}

fn without_oldest(messages: &[Message], mut drop: usize) -> Vec<Message> {
    let last = messages.len().saturating_sub(1);
    let stays = |(at, message): &(usize, &Message)| {
        let goes = drop > 0 && *at != last && message.role != "system";
        drop -= usize::from(goes);
        !goes
    };
    let kept = messages.iter().enumerate().filter(stays);
    kept.map(|(_, message)| message.clone()).collect()
}

fn of_chat(
    model: &LlamaModel,
    messages: &[Message],
    room: usize,
) -> Result<Option<Vec<LlamaToken>>, EngineError> {
    let text = render(model, messages)?;
    Ok(tokenize(model, &text, room))
}

fn of_prompt(
    model: &LlamaModel,
    prompt: &Prompt,
    room: usize,
) -> Result<Option<Vec<LlamaToken>>, EngineError> {
    let vocabulary = model.n_vocab();
    if prompt
        .context
        .iter()
        .any(|token| !(0..vocabulary).contains(token))
    {
        return Err(refused(
            400,
            "context has a token that the model does not know",
        ));
    }
    let Some(room) = room.checked_sub(prompt.context.len()) else {
        return Ok(None);
    };
    let earlier = prompt.context.iter().copied().map(LlamaToken);
    let after_earlier = |tokens: Vec<LlamaToken>| earlier.chain(tokens).collect();
    if prompt.raw || model.chat_template(None).is_err() {
        let text = if prompt.system.is_empty() {
            prompt.text.clone()
        } else {
            format!("{}\n\n{}", prompt.system, prompt.text)
        };
        return Ok(tokenize(model, &text, room).map(after_earlier));
    }
    let system = (!prompt.system.is_empty()).then_some(("system", &prompt.system));
    let parts = system.into_iter().chain([("user", &prompt.text)]);
    let messages: Vec<_> = parts
        .map(|(role, text)| Message {
            role: role.to_owned(),
            content: text.clone(),
        })
        .collect();
    Ok(of_chat(model, &messages, room)?.map(after_earlier))
}

/// Formats a conversation with the model's chat template.
fn render(model: &LlamaModel, messages: &[Message]) -> Result<String, EngineError> {
    let no_template = || {
        refused(
            400,
            "the model has no chat template that the built-in engine supports; \
             use /api/generate with raw, or another model",
        )
    };
    let template: LlamaChatTemplate = model.chat_template(None).map_err(|_| no_template())?;
    let message = |message: &Message| {
        let role = if message.role.is_empty() {
            "user"
        } else {
            &message.role
        };
        LlamaChatMessage::new(role.to_owned(), message.content.clone())
            .map_err(|_| refused(400, "a message contains a NUL character; leave it out"))
    };
    let messages: Vec<_> = messages.iter().map(message).collect::<Result<_, _>>()?;
    model
        .apply_chat_template(&template, &messages, true)
        .map_err(|_| no_template())
}

/// Maximum number of bytes per token; larger than in any known vocabulary.
const TOKEN_BYTES_MAX: usize = 128;

/// Returns the tokens, unless there are more than `room`. Markers of the template become single
/// tokens; a start token that both template and vocabulary add is kept once.
fn tokenize(model: &LlamaModel, text: &str, room: usize) -> Option<Vec<LlamaToken>> {
    // A text that cannot fit is refused without tokenizing megabytes of it.
    if text.len() / TOKEN_BYTES_MAX > room {
        return None;
    }
    let vocabulary = model.vocab();
    let mut tokens = vocabulary.tokenize(text.as_bytes(), true, true);
    let bos = vocabulary.bos();
    if tokens.first() == Some(&bos) && tokens.get(1) == Some(&bos) {
        tokens.remove(0);
    }
    (tokens.len() <= room).then_some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(roles: &[&str]) -> Vec<Message> {
        let message = |(at, role): (usize, &&str)| Message {
            role: (*role).to_owned(),
            content: at.to_string(),
        };
        roles.iter().enumerate().map(message).collect()
    }

    #[test]
    fn the_oldest_go_first_and_system_and_last_stay() {
        let messages = conversation(&["user", "system", "assistant", "user"]);
        assert_eq!(droppable(&messages), 2);
        let left = |drop| -> String {
            let kept = without_oldest(&messages, drop);
            kept.iter()
                .map(|message| message.content.as_str())
                .collect()
        };
        assert_eq!(
            [left(0), left(1), left(2), left(9)],
            ["0123", "123", "13", "13"]
        );
        assert_eq!(droppable(&conversation(&["system"])), 0);
        assert_eq!(droppable(&[]), 0);
    }
}
