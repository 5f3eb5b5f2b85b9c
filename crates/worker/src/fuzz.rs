//! Entry points of `tests/fuzz` for the parsers of a relay's messages.

use bytes::Bytes;
use proto::worker::{Frame, RelayMessage};

use crate::relay::websocket::arriving::Arriving;

/// Processes the messages and frames of one connection: text messages as lines, and frames as lines
/// of hexadecimal digits.
pub fn arriving(bytes: &[u8]) {
    let mut arriving = Arriving::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(RelayMessage::Lease(head)) = serde_json::from_slice(line) {
            if arriving.begin(head).is_err() {
                return;
            }
            continue;
        }
        let Some(frame) = unhex(line).and_then(|frame| Frame::decode(&frame).ok()) else {
            continue;
        };
        match arriving.add(frame) {
            Ok(Some((head, body))) => assert_eq!(body.0.len(), head.body_len),
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

fn unhex(line: &[u8]) -> Option<Bytes> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (pairs, _) = line.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| {
        let byte = digit(high)? << 4 | digit(low)?;
        u8::try_from(byte).ok()
    });
    bytes.collect()
}
