//! Assigns tool results to tool calls. OpenAI identifies calls by ids; Ollama by function names, or
//! only by order.

use std::collections::{HashMap, VecDeque};

/// The tool calls of a chat so far.
#[derive(Debug, Default)]
pub(super) struct Calls<'a> {
    made: Vec<Made>,
    by_id: HashMap<&'a str, usize>,
    by_name: HashMap<&'a str, VecDeque<usize>>,
    /// Index of the oldest call without a result.
    oldest: usize,
}

#[derive(Debug)]
struct Made {
    id: String,
    is_answered: bool,
}

impl<'a> Calls<'a> {
    /// Returns the id of the nth call of a message; generates one if it has none.
    pub(super) fn make(
        &mut self,
        id: Option<&'a str>,
        name: &'a str,
        (message, n): (usize, usize),
    ) -> String {
        let at = self.made.len();
        if let Some(id) = id {
            self.by_id.insert(id, at);
        }
        self.by_name.entry(name).or_default().push_back(at);
        let id = id.map_or_else(|| format!("call_{message}_{n}"), str::to_owned);
        self.made.push(Made {
            id: id.clone(),
            is_answered: false,
        });
        id
    }

    /// Records a result that names its call.
    pub(super) fn answered(&mut self, id: &str) {
        let made = self.by_id.get(id).and_then(|at| self.made.get_mut(*at));
        if let Some(made) = made {
            made.is_answered = true;
        }
    }

    /// Returns the id of the call that an unnamed result belongs to: the oldest unanswered call of
    /// its function, otherwise the oldest unanswered one.
    pub(super) fn answer(&mut self, name: Option<&str>) -> Option<String> {
        let open = name.and_then(|name| self.by_name.get_mut(name));
        let at = open.and_then(|open| {
            let made = &self.made;
            let is_answered = |at: &usize| made.get(*at).is_none_or(|made| made.is_answered);
            while open.front().is_some_and(is_answered) {
                open.pop_front();
            }
            open.pop_front()
        });
        while self
            .made
            .get(self.oldest)
            .is_some_and(|made| made.is_answered)
        {
            self.oldest += 1;
        }
        let made = self.made.get_mut(at.unwrap_or(self.oldest))?;
        made.is_answered = true;
        Some(made.id.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_answers_the_oldest_open_call_of_its_name_else_the_oldest() {
        let mut calls = Calls::default();
        assert_eq!(calls.answer(None), None);
        for (n, name) in ["f", "g", "f", "g"].into_iter().enumerate() {
            calls.make(None, name, (1, n));
        }
        calls.make(Some("own"), "g", (2, 0));
        calls.answered("nobody's");
        assert_eq!(calls.answer(Some("g")).as_deref(), Some("call_1_1"));
        assert_eq!(calls.answer(None).as_deref(), Some("call_1_0"));
        assert_eq!(calls.answer(Some("f")).as_deref(), Some("call_1_2"));
        calls.answered("own");
        assert_eq!(calls.answer(Some("other")).as_deref(), Some("call_1_3"));
        assert_eq!(calls.answer(Some("g")), None, "it is answered");
    }
}
