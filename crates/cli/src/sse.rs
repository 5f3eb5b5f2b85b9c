//! Parses a stream of server-sent events (WHATWG HTML, section 9.2) from chunks of bytes.

/// One server-sent event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The most recent `id` line, of this event or an earlier one.
    pub(crate) id: String,
    /// The `event` line; `message` if there was none.
    pub(crate) name: String,
    /// The `data` lines, joined by line feeds.
    pub(crate) data: String,
}

/// Maximum size of an event, in bytes; a server that sends more does not speak Hearth's protocol.
const EVENT_MAX: usize = proto::limits::LINE_MAX + 1024;

/// An incremental parser; keeps incomplete events.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    rest: Vec<u8>,
    id: String,
    name: String,
    data: Option<String>,
}

impl Reader {
    /// Adds a chunk and returns the events that it completes.
    ///
    /// # Errors
    /// If an event is longer than [`EVENT_MAX`] or not UTF-8.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Event>> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|byte| *byte == b'\n') {
            let line = std::str::from_utf8(&self.rest[start..start + length])?;
            let line = line.strip_suffix('\r').unwrap_or(line).to_owned();
            start += length + 1;
            events.extend(self.line(&line));
        }
        self.rest.drain(..start);
        let held = self.rest.len() + self.data.as_ref().map_or(0, String::len);
        anyhow::ensure!(
            held <= EVENT_MAX,
            "the relay sent an event of more than {EVENT_MAX} bytes"
        );
        Ok(events)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            return self.data.take().map(|data| Event {
                id: self.id.clone(),
                name: if name.is_empty() {
                    "message".to_owned()
                } else {
                    name
                },
                data,
            });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.id),
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {} // a comment (empty field name), `retry`, or an unknown field
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": ping\n\nid: 1-1\nevent: line\ndata: {\"a\":1}\n\n: ping\r\ndata: x\r\ndata:y\r\n\r\n";

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_cut() {
        let whole = Reader::default().push(STREAM.as_bytes()).unwrap();
        assert_eq!(whole.len(), 2);
        assert_eq!(whole[0].name, "line");
        assert_eq!(whole[0].data, "{\"a\":1}");
        let last = Event {
            id: "1-1".into(),
            name: "message".into(),
            data: "x\ny".into(),
        };
        assert_eq!(whole[1], last);
        for cut in 0..STREAM.len() {
            let mut reader = Reader::default();
            let mut events = reader.push(&STREAM.as_bytes()[..cut]).unwrap();
            events.extend(reader.push(&STREAM.as_bytes()[cut..]).unwrap());
            assert_eq!(events, whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_damaged_stream_gives_the_same_events_byte_by_byte_or_the_same_refusal() {
        ::tests::mutate::mutate(&[STREAM.into()], 1, 2_000, |bytes| {
            let whole = Reader::default().push(bytes);
            let mut reader = Reader::default();
            let pieces = bytes.chunks(1).map(|byte| reader.push(byte));
            let pieces: Result<Vec<_>, _> = pieces.collect();
            let shown = bytes.escape_ascii();
            assert_eq!(whole.is_ok(), pieces.is_ok(), "{shown}");
            if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
                assert_eq!(pieces.concat(), whole, "{shown}");
            }
        });
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = Reader::default();
        let error = reader.push(&vec![b'x'; EVENT_MAX + 1]).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
    }
}
