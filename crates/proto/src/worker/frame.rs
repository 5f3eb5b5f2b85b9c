//! The binary frames of the WebSocket: bodies and lines.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::{Body, JobId, LeaseToken};

/// A binary frame: large or frequent payloads without JSON around them.
///
/// ```text
/// byte 0       kind: 1 body (relay to worker), 2 line (worker to relay)
/// byte 1       flags: bit 0 = more parts of the same body or line follow
/// 2..18        job id
/// 18..22       attempt, big endian
/// 22..30       n: the line's number, or the byte offset within the body; big endian
/// 30..         payload
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Kind of the payload.
    pub kind: FrameKind,
    /// Lease it belongs to.
    pub token: LeaseToken,
    /// Number of the line, or offset of this part within the body.
    pub n: u64,
    /// Whether more parts of the same body or line follow.
    pub more: bool,
    /// The payload.
    pub payload: Body,
}

/// Kind of a [`Frame`]'s payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Part of a request body, relay to worker.
    Body,
    /// Part of a log line, worker to relay.
    Line,
}

/// Reasons why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than its header.
    #[error("a frame must have at least {} bytes", Frame::HEADER)]
    Short,
    /// A kind this version does not know.
    #[error("unknown frame kind {0}")]
    Kind(u8),
}

impl Frame {
    /// Number of bytes before the payload.
    pub const HEADER: usize = 30;
    /// Maximum number of payload bytes in one frame.
    pub const PAYLOAD_MAX: usize = crate::limits::FRAME_MAX - Self::HEADER;
    /// Number of payload bytes in each part of a body. A part must be sent and received completely
    /// before another frame, so on a slow connection it has to be small.
    pub const BODY_PART: usize = 16 * 1024;

    /// Returns the frame's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::HEADER + self.payload.0.len());
        out.put_u8(match self.kind {
            FrameKind::Body => 1,
            FrameKind::Line => 2,
        });
        out.put_u8(u8::from(self.more));
        out.put_slice(&self.token.job.0);
        out.put_u32(self.token.attempt);
        out.put_u64(self.n);
        out.put_slice(&self.payload.0);
        out.freeze()
    }

    /// Parses a frame; the payload shares the input's memory.
    ///
    /// # Errors
    /// [`FrameError`] if the header is short or the kind unknown. Unknown flags are ignored.
    pub fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        let Some((head, _)) = bytes.split_first_chunk::<{ Self::HEADER }>() else {
            return Err(FrameError::Short);
        };
        let kind = match head[0] {
            1 => FrameKind::Body,
            2 => FrameKind::Line,
            other => return Err(FrameError::Kind(other)),
        };
        let (mut job, mut attempt, mut n) = ([0; 16], [0; 4], [0; 8]);
        job.copy_from_slice(&head[2..18]);
        attempt.copy_from_slice(&head[18..22]);
        n.copy_from_slice(&head[22..30]);
        Ok(Self {
            kind,
            token: LeaseToken {
                job: JobId(job),
                attempt: u32::from_be_bytes(attempt),
            },
            n: u64::from_be_bytes(n),
            more: head[1] & 1 == 1,
            payload: Body(bytes.slice(Self::HEADER..)),
        })
    }

    /// Splits one line into as few frames as possible; an empty line is one empty frame.
    pub fn line(token: LeaseToken, n: u64, line: &Bytes) -> impl Iterator<Item = Self> + use<> {
        let parts = Self::parts(FrameKind::Line, token, line.clone(), Self::PAYLOAD_MAX);
        parts.map(move |part| Self { n, ..part })
    }

    /// Splits one body; `n` of each part is its offset.
    pub fn body(token: LeaseToken, body: &Bytes) -> impl Iterator<Item = Self> + use<> {
        Self::parts(FrameKind::Body, token, body.clone(), Self::BODY_PART)
    }

    fn parts(
        kind: FrameKind,
        token: LeaseToken,
        bytes: Bytes,
        max: usize,
    ) -> impl Iterator<Item = Self> {
        let count = bytes.len().div_ceil(max).max(1);
        (0..count).map(move |part| {
            let start = part * max;
            let end = bytes.len().min(start + max);
            let payload = Body(bytes.slice(start..end));
            Self {
                kind,
                token,
                n: start as u64,
                more: part + 1 < count,
                payload,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: LeaseToken = LeaseToken {
        job: JobId([0xcd; 16]),
        attempt: 3,
    };

    #[test]
    fn a_line_frame_has_exactly_these_bytes() {
        let frames: Vec<_> = Frame::line(TOKEN, 7, &Bytes::from_static(b"{}")).collect();
        let [frame] = frames.as_slice() else {
            panic!("one frame")
        };
        let mut expected = vec![2, 0];
        expected.extend([0xcd; 16]);
        expected.extend([0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 7]);
        expected.extend(b"{}");
        assert_eq!(frame.encode(), expected);
    }

    #[test]
    fn a_long_body_is_split_and_put_together_again() {
        let body = Bytes::from(vec![b'x'; Frame::BODY_PART * 2 + 5]);
        let parts: Vec<_> = Frame::body(TOKEN, &body)
            .map(|part| Frame::decode(&part.encode()).unwrap())
            .collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(
            parts.iter().map(|p| p.more).collect::<Vec<_>>(),
            [true, true, false]
        );
        assert!(parts.iter().all(|p| p.payload.0.len() <= Frame::BODY_PART));
        let whole: Vec<u8> = parts.iter().flat_map(|p| p.payload.0.to_vec()).collect();
        assert_eq!(whole, body);
    }

    #[test]
    fn damaged_frames_are_errors_not_panics() {
        let good = Frame::line(TOKEN, 1, &Bytes::from_static(b"abc"))
            .next()
            .unwrap()
            .encode();
        for cut in 0..Frame::HEADER {
            assert_eq!(Frame::decode(&good.slice(..cut)), Err(FrameError::Short));
        }
        let mut wrong = good.to_vec();
        wrong[0] = 9;
        assert_eq!(Frame::decode(&wrong.into()), Err(FrameError::Kind(9)));
    }
}
