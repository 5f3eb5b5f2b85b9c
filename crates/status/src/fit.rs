//! Limits the size of a status to what its readers accept.

use std::{io, iter};

use proto::{limits::HUB_MESSAGE_MAX, status::Status};

/// Maximum size of a status as JSON, so that it fits in one message with its envelope.
const MOST: usize = HUB_MESSAGE_MAX - 1024;
/// Length to which texts of an oversized status are cut, in bytes of JSON.
const SENTENCE: usize = 2 * 1024;
const NAME: usize = 512;
/// Upper bound of the JSON bytes beside the texts, for the status and for each entry of a list.
const FRAME: usize = 1024;

/// Cuts texts, then drops the last jobs, until the status fits. An engine's problem text can have
/// any length, and a worker any number of slots.
pub(crate) fn fit(status: &mut Status) {
    if at_most(status) <= MOST || size(status) <= MOST {
        return;
    }
    cut(&mut status.text, SENTENCE);
    for hop in [&mut status.relay, &mut status.engine] {
        cut(&mut hop.problem, SENTENCE);
        cut(&mut hop.name, NAME);
    }
    for publisher in &mut status.publishers {
        cut(&mut publisher.name, NAME);
        if let Some(origin) = &mut publisher.origin {
            cut(origin, NAME);
        }
    }
    for job in &mut status.jobs {
        cut(&mut job.who, NAME);
    }
    while size(status) > MOST && !status.jobs.is_empty() {
        // Takes few rounds: after the texts are cut, nearly all of the size is jobs.
        let keeps = status.jobs.len() * MOST / (size(status) + FRAME);
        status.jobs.truncate(keeps);
    }
}

/// An upper bound of the size, without serializing: one byte of text becomes at most six.
fn at_most(status: &Status) -> usize {
    let hops = [&status.relay, &status.engine].into_iter();
    let publishers = status.publishers.iter().map(|publisher| {
        let origin = publisher.origin.as_ref().map_or(0, String::len);
        let fields: usize = publisher.fields.iter().map(String::len).sum();
        publisher.name.len() + origin + fields
    });
    let texts = iter::once(status.text.len())
        .chain(hops.map(|hop| hop.name.len() + hop.problem.len()))
        .chain(publishers)
        .chain(status.jobs.iter().map(|job| job.who.len()));
    let frames = FRAME * (1 + status.jobs.len() + status.publishers.len());
    texts.sum::<usize>() * 6 + frames
}

fn size(status: &Status) -> usize {
    let mut count = Count(0);
    // Only the writer could fail, and this one only counts.
    let _ = serde_json::to_writer(&mut count, status);
    count.0
}

fn cut(text: &mut String, most: usize) {
    let mut room = most;
    let end = text.char_indices().find(|(_, sign)| {
        let takes = match sign {
            '"' | '\\' => 2,
            sign if sign.is_control() => 6,
            sign => sign.len_utf8(),
        };
        let fits = room.checked_sub(takes);
        room = fits.unwrap_or(0);
        fits.is_none()
    });
    if let Some((at, _)) = end {
        text.truncate(at);
    }
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        JobId, ModelName, Op, Timestamp,
        status::{Hop, HopState, LiveJob, Publisher},
    };

    use super::*;

    fn job(who: &str) -> LiveJob {
        LiveJob {
            id: JobId([255; 16]),
            who: who.to_owned(),
            model: ModelName::new("m".repeat(proto::MODEL_NAME_MAX)).unwrap(),
            op: Op::Generate,
            started_at: Timestamp(i64::MIN),
            tokens: u64::MAX,
            tokens_per_second: f32::MIN,
        }
    }

    fn large(jobs: usize, text: &str) -> Status {
        let hop = Hop {
            state: HopState::Unknown,
            name: text.to_owned(),
            problem: text.to_owned(),
        };
        let publisher = Publisher {
            name: text.to_owned(),
            fields: vec!["wake_word_detected".to_owned()],
            origin: Some(text.to_owned()),
            stale: true,
        };
        Status {
            text: text.to_owned(),
            jobs: vec![job(text); jobs],
            relay: hop.clone(),
            engine: hop,
            publishers: vec![publisher; 5],
            seq: u64::MAX,
            ..Status::default()
        }
    }

    #[test]
    fn whatever_is_in_it_fits_and_keeps_as_many_jobs_as_there_is_room_for() {
        for text in ["x", "\0", "\"", "\u{7f}", "\u{10ffff}", "żó"] {
            for length in [0, 1, 100, 5_000] {
                for jobs in [0, 1, 64, 300] {
                    let mut status = large(jobs, &text.repeat(length / text.len()));
                    let before = status.clone();
                    fit(&mut status);
                    assert!(size(&status) <= MOST, "{text:?} {length} {jobs}");
                    assert_eq!(status.jobs.is_empty(), jobs == 0);
                    if size(&before) <= MOST {
                        assert_eq!(status, before);
                    }
                    if jobs == 300 {
                        assert!(size(&status) > MOST * 3 / 4, "{}", size(&status));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_reckoned_is_never_less_than_the_size() {
        for (jobs, text) in [(0, ""), (0, "\0"), (64, ""), (3, "\0\0\""), (64, "ż\\")] {
            let status = large(jobs, text);
            assert!(at_most(&status) >= size(&status), "{jobs} {text:?}");
        }
    }
}
