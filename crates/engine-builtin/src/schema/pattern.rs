//! How much llama.cpp makes of a regular expression: what is to come several times is written as
//! often, and so is whatever stands within it.

/// The elements of its grammar; `usize::MAX` where that cannot be told.
pub(super) fn size(pattern: &str) -> usize {
    let mut signs = pattern.chars();
    // The groups that are open: all that is in each, and its last element, which may be repeated.
    let mut open = vec![(0_usize, 0_usize)];
    while let Some(sign) = signs.next() {
        let Some((all, last)) = open.last_mut() else {
            return usize::MAX;
        };
        let copies = match sign {
            '(' => {
                open.push((0, 0));
                continue;
            }
            ')' => {
                let group = all.saturating_add(1);
                open.pop();
                let Some((all, last)) = open.last_mut() else {
                    return usize::MAX;
                };
                (*all, *last) = (all.saturating_add(group), group);
                continue;
            }
            '*' | '?' => 1,
            // One, and as many more as there are.
            '+' => 2,
            '{' => {
                let within: String = signs.by_ref().take_while(|sign| *sign != '}').collect();
                match times(&within) {
                    Some(times) => times,
                    None => return usize::MAX,
                }
            }
            '[' => {
                class(&mut signs);
                (*all, *last) = (all.saturating_add(1), 1);
                continue;
            }
            '\\' => {
                signs.next();
                // It is one text with the signs before it, which is repeated whole.
                (*all, *last) = (all.saturating_add(1), last.saturating_add(1));
                continue;
            }
            _ => {
                (*all, *last) = (all.saturating_add(1), 1);
                continue;
            }
        };
        let more = last.saturating_mul(copies.saturating_sub(1));
        (*all, *last) = (
            all.saturating_add(more).saturating_add(1),
            last.saturating_mul(copies),
        );
    }
    open.iter()
        .fold(0, |sum: usize, (all, _)| sum.saturating_add(*all))
}

/// Goes behind the end of a class of signs.
fn class(signs: &mut std::str::Chars<'_>) {
    while let Some(sign) = signs.next() {
        match sign {
            ']' => return,
            '\\' => drop(signs.next()),
            _ => {}
        }
    }
}

/// How often `2`, `2,` or `2,5` is written at most; `None` where it is none of these.
fn times(within: &str) -> Option<usize> {
    let (least, most) = within.split_once(',').unwrap_or((within, within));
    let number = |text: &str| text.parse::<usize>().ok();
    let least = if least.is_empty() { 0 } else { number(least)? };
    if most.is_empty() {
        return least.checked_add(1);
    }
    number(most)
        .filter(|most| *most >= least)
        .map(|most| most.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_counts_as_often() {
        for (pattern, least, most) in [
            ("^[A-Z]{2}[0-9]{4}$", 6, 12),
            ("^([0-9]{1,3}\\.){3}[0-9]{1,3}$", 15, 25),
            ("^(yes|no)$", 5, 9),
            ("^\\(a\\{9\\)$", 6, 9),
            ("^[({9}\\]]*$", 3, 4),
            ("^((a{9}){9}){9}$", 729, 950),
            ("^((a+)+)+$", 8, 30),
        ] {
            let size = size(pattern);
            assert!((least..=most).contains(&size), "{pattern}: {size}");
        }
        for pattern in ["^a{5,2}$", "^a{x}$", "^a)$", "^a{99999999999999999999}$"] {
            assert_eq!(size(pattern), usize::MAX, "{pattern}");
        }
        let nested = |inner: &str| "(".repeat(60) + "a" + &inner.repeat(60);
        assert!(size(&nested(")+")) > 1 << 50);
        assert!(size(&nested("?){9}")) > 1 << 50);
    }
}
