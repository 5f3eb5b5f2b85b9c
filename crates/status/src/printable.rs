//! Sanitizes text of other programs before it is shown.

/// Removes characters that control a terminal or change how the line reads.
#[must_use]
pub fn strip_control_chars(text: &str) -> String {
    text.chars().filter(|sign| is_printable(*sign)).collect()
}

/// Whether a character is visible and has no other effect.
#[must_use]
pub fn is_printable(sign: char) -> bool {
    let hides = matches!(sign, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
    !sign.is_control() && !hides
}
