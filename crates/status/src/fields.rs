//! A status as a map of its top-level fields. Clients of `hearth.status.v1` are sent those that
//! changed.

use proto::status::Status;
use serde_json::{Map, Value};

/// The fields of one status, without `seq`, which messages carry separately.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fields(pub(crate) Map<String, Value>);

impl Fields {
    pub(crate) fn new(status: &Status) -> Self {
        // Goes through the text, so that numbers are written as in the legacy mode.
        let text = serde_json::to_string(status).unwrap_or_default();
        let mut fields: Map<_, _> = serde_json::from_str(&text).unwrap_or_default();
        fields.shift_remove("seq");
        // The legacy mode omits an empty list; here every field is always present.
        fields
            .entry("publishers")
            .or_insert_with(|| Value::Array(Vec::new()));
        Self(fields)
    }

    /// The fields without the figures that change with every token.
    pub(crate) fn without_progress(&self) -> Self {
        let mut fields = self.0.clone();
        let jobs = fields.get_mut("jobs").and_then(Value::as_array_mut);
        for job in jobs.into_iter().flatten().filter_map(Value::as_object_mut) {
            job.shift_remove("tokens");
            job.shift_remove("tokens_per_second");
        }
        Self(fields)
    }

    /// The fields of `next` that differ. Every status has the same fields.
    pub(crate) fn changes(&self, next: &Self) -> Map<String, Value> {
        let is_new = |(name, value): &(&String, &Value)| self.0.get(*name) != Some(value);
        let changed = next.0.iter().filter(is_new);
        changed.map(|(n, v)| (n.clone(), v.clone())).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proto::{
        JobId, ModelName, Op, Timestamp,
        status::{LiveJob, Phase},
    };

    use super::*;

    pub(crate) fn working(tokens: u64) -> Status {
        Status {
            jobs: vec![LiveJob {
                id: JobId([1; 16]),
                who: "laptop".into(),
                model: ModelName::new("m:1b").unwrap(),
                op: Op::Chat,
                started_at: Timestamp(0),
                tokens,
                tokens_per_second: 0.1,
            }],
            ..Status::default()
        }
    }

    #[test]
    fn only_what_changed_is_told_and_seq_is_no_field() {
        let before = Fields::new(&Status::default());
        let after = Fields::new(&Status {
            status: Phase::Ready,
            seq: 9,
            ..Status::default()
        });
        let changes = before.changes(&after);
        assert_eq!(
            serde_json::to_string(&changes).unwrap(),
            r#"{"status":"ready"}"#
        );
        assert!(before.changes(&before).is_empty());
    }

    #[test]
    fn a_token_more_changes_nothing_for_whoever_did_not_ask_for_progress() {
        let (one, two) = (Fields::new(&working(1)), Fields::new(&working(2)));
        assert_eq!(one.changes(&two).len(), 1);
        let text = serde_json::to_string(&one.0).unwrap();
        assert!(text.contains(r#""tokens_per_second":0.1}"#), "{text}");
        let (one, two) = (one.without_progress(), two.without_progress());
        assert!(one.changes(&two).is_empty());
        assert!(
            one.0["jobs"][0].get("who").is_some(),
            "the job itself is told"
        );
    }
}
