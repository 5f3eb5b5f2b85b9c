//! Cost of the grammar that llama.cpp makes of a regular expression. A repetition is expanded with
//! everything inside it, and a token that does not match is checked against every way in which the
//! text so far can be matched.

/// The cost of a pattern; `u64::MAX` if it cannot be determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    /// Number of elements of its grammar.
    pub(super) size: u64,
    /// Maximum number of ways in which a text can be matched.
    pub(super) ways: u64,
}

/// Number of ways counted for an unbounded repetition: about the number of characters in the
/// longest token.
const ENDLESS: u64 = 64;

const UNKNOWN: Cost = Cost {
    size: u64::MAX,
    ways: u64::MAX,
};

/// An open group.
#[derive(Debug)]
struct Group {
    size: u64,
    /// Cost of its last element, which may be followed by a repetition.
    last: Cost,
    /// Number of ways to match the elements before the last one in the current alternative.
    before: u64,
    alternatives: u64,
}

impl Group {
    const NEW: Self = Self {
        size: 0,
        last: Cost { size: 0, ways: 1 },
        before: 1,
        alternatives: 0,
    };

    fn push(&mut self, element: Cost) {
        self.size = self.size.saturating_add(element.size);
        self.before = self.before.saturating_mul(self.last.ways);
        self.last = element;
    }

    fn alternative(&mut self) {
        self.push(Cost { size: 0, ways: 1 });
        self.alternatives = self.alternatives.saturating_add(self.before);
        self.before = 1;
    }

    fn close(mut self) -> Cost {
        self.alternative();
        Cost {
            size: self.size.saturating_add(1),
            ways: self.alternatives,
        }
    }

    /// Repeats the last element; `most` is `None` for an unbounded repetition.
    fn repeat(&mut self, least: u64, most: Option<u64>) {
        let Cost { size, ways } = self.last;
        let copies = most.unwrap_or(least.saturating_add(1)).max(1);
        let ways = match most {
            None if ways == 1 => ENDLESS,
            None => u64::MAX,
            Some(most) => {
                let each = ways.saturating_pow(u32::try_from(most).unwrap_or(u32::MAX));
                each.saturating_mul((most - least).saturating_add(1))
            }
        };
        let all = size.saturating_mul(copies);
        self.size = self.size.saturating_add(all - size).saturating_add(1);
        self.last = Cost { size: all, ways };
    }
}

pub(super) fn cost(pattern: &str) -> Cost {
    let mut signs = pattern.chars();
    let mut open = vec![Group::NEW];
    while let Some(sign) = signs.next() {
        let Some(group) = open.last_mut() else {
            return UNKNOWN;
        };
        match sign {
            '(' => open.push(Group::NEW),
            ')' => {
                let closed = open.pop().map_or(UNKNOWN, Group::close);
                match open.last_mut() {
                    Some(around) => around.push(closed),
                    None => return UNKNOWN,
                }
            }
            '|' => group.alternative(),
            '*' => group.repeat(0, None),
            '+' => group.repeat(1, None),
            '?' => group.repeat(0, Some(1)),
            '{' => {
                let within: String = signs.by_ref().take_while(|sign| *sign != '}').collect();
                match times(&within) {
                    Some((least, most)) => group.repeat(least, most),
                    None => return UNKNOWN,
                }
            }
            '[' => {
                class(&mut signs);
                group.push(Cost { size: 1, ways: 1 });
            }
            '\\' => {
                signs.next();
                // llama.cpp joins it with the characters before it, and repeats them together.
                let size = group.last.size.saturating_add(1);
                group.push(Cost { size, ways: 1 });
            }
            _ => group.push(Cost { size: 1, ways: 1 }),
        }
    }
    if open.len() > 1 {
        return UNKNOWN;
    }
    open.pop().map_or(UNKNOWN, Group::close)
}

/// Skips to the end of a character class.
fn class(signs: &mut std::str::Chars<'_>) {
    while let Some(sign) = signs.next() {
        match sign {
            ']' => return,
            '\\' => drop(signs.next()),
            _ => {}
        }
    }
}

/// Parses `2`, `2,` or `2,5` to minimum and maximum; `None` for anything else.
fn times(within: &str) -> Option<(u64, Option<u64>)> {
    let number = |text: &str| text.parse::<u64>().ok();
    let Some((least, most)) = within.split_once(',') else {
        return number(within).map(|times| (times, Some(times)));
    };
    let least = if least.is_empty() { 0 } else { number(least)? };
    if most.is_empty() {
        return Some((least, None));
    }
    let most = number(most).filter(|most| *most >= least)?;
    Some((least, Some(most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_counts_as_often_and_ways_to_read_it_multiply() {
        for (pattern, least, most, ways) in [
            ("^[A-Z]{2}[0-9]{4}$", 6, 12, 1),
            ("^([0-9]{1,3}\\.){3}[0-9]{1,3}$", 15, 40, 81),
            ("^(yes|no|perhaps)$", 12, 16, 3),
            ("^\\(a\\{9\\)$", 6, 20, 1),
            ("^[({9}\\]]*$", 3, 6, 64),
            ("^[a-z]+@[a-z]+\\.[a-z]{2,}$", 9, 24, 64 * 64 * 64),
            ("^a?b?(c|d)?$", 6, 14, 2 * 2 * 4),
        ] {
            let cost = cost(pattern);
            assert_eq!(cost.ways, ways, "{pattern}");
            assert!((least..=most).contains(&cost.size), "{pattern}: {cost:?}");
        }
        for pattern in [
            "^a{5,2}$",
            "^a{x}$",
            "^a)$",
            "^(a$",
            "^a{99999999999999999999}$",
        ] {
            assert_eq!(cost(pattern), UNKNOWN, "{pattern}");
        }
        let many = |text: &str| text.repeat(60);
        for pattern in [
            format!("{}a{}", many("("), many(")+")),
            format!("{}a{}", many("("), many("?){9}")),
            "(a?){1300}".to_owned(),
            "((a{0,9}){0,9}){0,9}".to_owned(),
            "(a|a)*".to_owned(),
            many("-?"),
        ] {
            assert!(cost(&pattern).ways > 1 << 50, "{pattern}");
        }
    }
}
