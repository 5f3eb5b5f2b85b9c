//! Bytes written as lower-case hexadecimal digits.

use std::fmt::{self, Write};

/// Defines types of `$len` bytes that are written as lower-case hexadecimal digits.
macro_rules! hex_bytes {
    ($(#[doc = $doc:literal] $name:ident, $len:literal, $rule:literal;)*) => {$(
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; $len]);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::hex::write(&self.0, f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(from)?;
                $crate::hex::decode(&text)
                    .map(Self)
                    .ok_or_else(|| serde::de::Error::custom($rule))
            }
        }
    )*};
}
pub(crate) use hex_bytes;

/// Returns the digits of some bytes, two for each.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    // Writing to a String cannot fail.
    let _ = write(bytes, &mut text);
    text
}

pub(crate) fn write(bytes: &[u8], to: &mut impl Write) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(to, "{byte:02x}"))
}

/// Parses exactly `N` bytes. Upper-case digits are refused, so that each value has one spelling.
#[must_use]
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_spelling_of_exactly_their_length() {
        let bytes = [0x00, 0x0f, 0xa0, 0xff];
        assert_eq!(encode(&bytes), "000fa0ff");
        assert_eq!(decode("000fa0ff"), Some(bytes));
        for wrong in [
            "",
            "000fa0f",
            "000fa0f ",
            "000FA0FF",
            "000fa0ff00",
            "000fa0fg",
        ] {
            assert_eq!(decode::<4>(wrong), None, "{wrong}");
        }
    }
}
