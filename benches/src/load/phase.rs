//! A phase of the measurement in short windows, and how soon all is as before an overload.

use std::{fmt, time::Duration};

use crate::stats::Sample;

/// What happened in a short time.
#[derive(Debug, Clone)]
pub(super) struct Window {
    pub(super) length: Duration,
    /// Number of jobs that ended.
    pub(super) ended: usize,
    /// Times until an acknowledgement, one for each accepted job.
    pub(super) acknowledged: Vec<Duration>,
    pub(super) refused: usize,
}

impl Window {
    /// The jobs that were accepted or that ended, whichever are fewer, a second.
    fn rate(&self) -> f64 {
        per_second(self.acknowledged.len().min(self.ended), self.length)
    }

    /// The 99th percentile of the times until an acknowledgement, in milliseconds.
    fn p99(&self) -> f64 {
        acknowledged([self]).percentile(0.99)
    }
}

/// Jobs that ended in these windows, a second.
pub(super) fn rate(windows: &[Window]) -> f64 {
    let ended = windows.iter().map(|window| window.ended).sum();
    per_second(ended, windows.iter().map(|window| window.length).sum())
}

/// The times until an acknowledgement, in milliseconds.
pub(super) fn acknowledged<'a>(windows: impl IntoIterator<Item = &'a Window>) -> Sample {
    let times = windows.into_iter().flat_map(|window| &window.acknowledged);
    times.copied().collect()
}

pub(super) fn per_second(count: usize, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand")]
    let count = count as f64;
    count / time.as_secs_f64()
}

/// The time after an overload until a window is as those without one: 0.9 of their rate, nothing
/// refused, and p99 at most doubled. Also what the windows until then lacked.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub(super) after: Duration,
    /// The rates of windows with too few jobs, as shares of the usual rate.
    slow: Vec<f64>,
    /// Number of windows with a refusal.
    refused: usize,
    /// Number of windows with late acknowledgements.
    late: usize,
}

impl Recovery {
    /// Looks for the first window that is as usual; if there is none, recovery took all of them.
    pub(super) fn of(windows: &[Window], rate: f64, p99: f64) -> Self {
        let mut recovery = Self::default();
        for window in windows {
            let share = window.rate() / rate;
            let (is_slow, is_refused) = (share < 0.9, window.refused > 0);
            let is_late = window.p99() > 2.0 * p99;
            if !is_slow && !is_refused && !is_late {
                break;
            }
            recovery.after += window.length;
            recovery.slow.extend(is_slow.then_some(share));
            recovery.refused += usize::from(is_refused);
            recovery.late += usize::from(is_late);
        }
        recovery
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refused, late, .. } = self;
        f.write_str("0.9 of the rate, none refused, p99 at most doubled")?;
        if self.after.is_zero() {
            return Ok(());
        }
        let shares: Sample = self.slow.iter().copied().collect();
        write!(
            f,
            "; windows before that: {} slower, {:.2} in the median, {refused} with refusals, {late} \
             with a higher p99",
            shares.len(),
            shares.median()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(ended: usize, millis: u64, refused: usize) -> Window {
        Window {
            length: Duration::from_millis(500),
            ended,
            acknowledged: vec![Duration::from_millis(millis); 100],
            refused,
        }
    }

    #[test]
    fn a_rate_is_that_of_all_windows_together() {
        assert!((rate(&[window(50, 5, 0), window(150, 5, 0)]) - 200.0).abs() < 1e-9);
    }

    #[test]
    fn recovery_takes_until_the_first_window_that_is_as_usual() {
        let usual = window(95, 9, 0);
        let (slow, refused, late) = (window(80, 5, 0), window(99, 5, 1), window(99, 11, 0));
        let after = |windows: &[Window]| Recovery::of(windows, 200.0, 5.0).after.as_millis();
        assert_eq!(after(&[usual.clone(), slow.clone()]), 0);
        for other in [&slow, &refused, &late] {
            assert_eq!(after(&[other.clone(), usual.clone()]), 500);
        }
        assert_eq!(after(&[slow, refused, late]), 1_500);
    }
}
