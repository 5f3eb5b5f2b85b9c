//! The commands of one connection that wait for their answers.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::AskError;

/// Maximum number of commands in flight.
pub(super) const ASKING: usize = 32;

type Answer = Result<(), AskError>;

/// The commands that wait, by their ids.
#[derive(Debug, Default)]
pub(super) struct Asked {
    open: HashMap<String, oneshot::Sender<Answer>>,
    last: u64,
}

impl Asked {
    /// Whether no further command is taken now. Commands whose callers gave up do not count.
    pub(super) fn is_full(&self) -> bool {
        let waiting = self.open.values().filter(|answer| !answer.is_closed());
        waiting.count() >= ASKING
    }

    /// Returns the number of the next command. Forgets the commands whose callers gave up.
    pub(super) fn next(&mut self) -> u64 {
        self.open.retain(|_, answer| !answer.is_closed());
        self.last += 1;
        self.last
    }

    /// Keeps the command of this number until it is settled.
    pub(super) fn keep(&mut self, number: u64, answer: oneshot::Sender<Answer>) {
        self.open.insert(number.to_string(), answer);
    }

    /// Tells the answer to the caller, if it is to a command that waits.
    pub(super) fn settle(&mut self, id: Option<String>, answer: Answer) {
        if let Some(caller) = id.and_then(|id| self.open.remove(&id)) {
            let _ = caller.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_whose_callers_gave_up_take_no_room() {
        let mut asked = Asked::default();
        let ask = |asked: &mut Asked| {
            let (sender, caller) = oneshot::channel();
            let number = asked.next();
            asked.keep(number, sender);
            caller
        };
        let callers: Vec<_> = (0..ASKING).map(|_| ask(&mut asked)).collect();
        assert!(asked.is_full());
        drop(callers);
        assert!(!asked.is_full());
        let mut last = ask(&mut asked);
        assert_eq!(asked.open.len(), 1);
        asked.settle(Some((ASKING + 1).to_string()), Ok(()));
        assert!(last.try_recv().unwrap().is_ok());
    }
}
