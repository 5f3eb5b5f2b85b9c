//! Stop strings.

/// Finds stop strings in text that arrives in pieces, and never outputs a part of one.
pub(crate) struct Stop {
    stops: Vec<String>,
    /// The end of the text so far that may be the beginning of a stop string.
    held: String,
}

/// Result of adding a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Text that can be output.
    pub(crate) text: String,
    /// Whether a stop string was found; nothing after it is output.
    pub(crate) stopped: bool,
}

impl Stop {
    /// Creates a finder. Empty stop strings are ignored.
    pub(crate) fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self {
            stops,
            held: String::new(),
        }
    }

    pub(crate) fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop))
            .min();
        if let Some(at) = found {
            self.held.truncate(at);
            return Passed {
                text: std::mem::take(&mut self.held),
                stopped: true,
            };
        }
        let keep = self.held.split_off(self.undecided());
        Passed {
            text: std::mem::replace(&mut self.held, keep),
            stopped: false,
        }
    }

    /// Returns the held-back text when the answer ends without a stop string.
    pub(crate) fn finish(self) -> String {
        self.held
    }

    /// Returns the start of the longest suffix that is the beginning of a stop string.
    fn undecided(&self) -> usize {
        let may_stop = |at: &usize| {
            let end = self.held.get(*at..).unwrap_or_default();
            self.stops.iter().any(|stop| stop.starts_with(end))
        };
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        let starts = self.held.char_indices().map(|(at, _)| at);
        starts
            .filter(|at| *at >= from)
            .find(may_stop)
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stop(stops: &[&str]) -> Stop {
        Stop::new(stops.iter().map(|&text| text.to_owned()).collect())
    }

    fn passed(text: &str, stopped: bool) -> Passed {
        let text = text.to_owned();
        Passed { text, stopped }
    }

    #[test]
    fn a_stop_string_in_pieces_never_leaks() {
        let mut stop = stop(&["</end>"]);
        assert_eq!(stop.push("done <"), passed("done ", false));
        assert_eq!(stop.push("/e"), passed("", false));
        assert_eq!(stop.push("nd> more"), passed("", true));
    }

    #[test]
    fn a_false_alarm_is_let_out_in_order() {
        let mut stop = stop(&["aab", "ac"]);
        assert_eq!(stop.push("xaa"), passed("x", false));
        assert_eq!(stop.push("a"), passed("a", false));
        assert_eq!(stop.push("q"), passed("aaq", false));
        assert_eq!(stop.push("a"), passed("", false));
        assert_eq!(stop.finish(), "a");
    }

    #[test]
    fn the_earliest_of_several_stops_wins_and_an_empty_one_stops_nothing() {
        assert_eq!(stop(&["", "c", "b"]).push("abc"), passed("a", true));
        assert_eq!(stop(&[""]).push("abc"), passed("abc", false));
    }

    proptest! {
        #[test]
        fn pieces_pass_what_the_whole_text_has_before_its_first_stop(
            pieces in prop::collection::vec("[abé]{0,3}", 0..20),
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
        ) {
            let whole = pieces.concat();
            let real = stops.iter().filter(|stop| !stop.is_empty());
            let first = real.filter_map(|stop| whole.find(stop.as_str())).min();
            let mut stop = Stop::new(stops);
            let mut out = String::new();
            let mut stopped = false;
            for piece in &pieces {
                let passed = stop.push(piece);
                out.push_str(&passed.text);
                if passed.stopped {
                    stopped = true;
                    break;
                }
            }
            if !stopped {
                out.push_str(&stop.finish());
            }
            prop_assert_eq!(stopped, first.is_some());
            // Of overlapping stop strings the one that is complete first wins, so that no text is
            // delayed.
            let until = first.unwrap_or(whole.len());
            prop_assert!(whole.starts_with(&out));
            if first.is_none() {
                prop_assert_eq!(out, whole);
            } else {
                prop_assert!(out.len() >= until);
            }
        }
    }
}
