//! Text of other programs, on its way to a person.

/// The text without what would steer a terminal, or make a line read as another.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().filter(|sign| is_plain(*sign)).collect()
}

/// Whether a sign is seen where it stands and does nothing else.
#[must_use]
pub fn is_plain(sign: char) -> bool {
    let hides = matches!(sign, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
    !sign.is_control() && !hides
}
