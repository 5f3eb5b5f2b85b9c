//! Medians, percentiles, and the printing of figures with their goals.

use std::{fmt, time::Duration};

/// Measured values, kept sorted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    /// The value below which `share` (0 to 1) of the sample lies; 0 for an empty sample.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a sample of a few thousand values"
        )]
        let index = (share * last as f64).round() as usize;
        self.0.get(index).copied().unwrap_or_default()
    }

    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no values.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The median.
    pub(crate) fn median(&self) -> f64 {
        self.percentile(0.5)
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

impl FromIterator<Duration> for Sample {
    /// Collects durations, in milliseconds.
    fn from_iter<T: IntoIterator<Item = Duration>>(values: T) -> Self {
        values
            .into_iter()
            .map(|value| value.as_secs_f64() * 1000.0)
            .collect()
    }
}

/// The direction and value of a goal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// The figure should be at least this.
    AtLeast(f64),
    /// The figure should be at most this.
    AtMost(f64),
    /// The figure is for information only.
    None,
}

/// See [`Figure::is_near`].
const NEAR: f64 = 0.8;

/// One printed line.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// The id and description of the figure.
    pub(crate) name: String,
    /// The ratio or value.
    pub(crate) value: f64,
    /// The goal.
    pub(crate) goal: Goal,
    /// The underlying numbers.
    pub(crate) detail: String,
}

impl Figure {
    /// Whether the goal is met; always true without a goal.
    pub(crate) fn is_met(&self) -> bool {
        match self.goal {
            Goal::AtLeast(least) => self.value >= least,
            Goal::AtMost(most) => self.value <= most,
            Goal::None => true,
        }
    }

    /// Whether the goal is met or missed by at most a fifth, because machines are noisy.
    pub(crate) fn is_near(&self) -> bool {
        match self.goal {
            Goal::AtLeast(least) => self.value >= NEAR * least,
            Goal::AtMost(most) => NEAR * self.value <= most,
            Goal::None => true,
        }
    }

    /// The figure as an object: `name`, `is_near`, and its `line` for people.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name,
            "is_near": self.is_near(),
            "line": self.to_string(),
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            value,
            detail,
            ..
        } = self;
        let goal = match self.goal {
            Goal::AtLeast(least) => format!(">= {least:.2}"),
            Goal::AtMost(most) => format!("<= {most:.2}"),
            Goal::None => String::new(),
        };
        let mark = if self.is_met() { ' ' } else { '!' };
        write!(f, "{mark} {name:<44} {value:>9.3}  {goal:<9}  {detail}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_of_the_sample() {
        let sample: Sample = [5.0, 1.0, 3.0, 2.0, 4.0].into_iter().collect();
        assert_eq!(sample.median().to_bits(), 3.0_f64.to_bits());
        assert_eq!(sample.percentile(1.0).to_bits(), 5.0_f64.to_bits());
        assert_eq!(Sample::default().median().to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn a_missed_goal_is_marked() {
        let figure = |value, goal| Figure {
            name: "T".into(),
            value,
            goal,
            detail: String::new(),
        };
        assert!(figure(1.2, Goal::AtMost(1.15)).to_string().starts_with('!'));
        assert!(figure(1.1, Goal::AtMost(1.15)).to_string().starts_with(' '));
        assert!(!figure(0.7, Goal::AtLeast(0.8)).is_met());
        for (value, goal, is_near) in [
            (0.7, Goal::AtLeast(0.8), true),
            (0.6, Goal::AtLeast(0.8), false),
            (1.2, Goal::AtMost(1.0), true),
            (1.3, Goal::AtMost(1.0), false),
            (0.1, Goal::AtMost(0.0), false),
            (9.9, Goal::None, true),
        ] {
            assert_eq!(figure(value, goal).is_near(), is_near, "{value}");
        }
    }
}
