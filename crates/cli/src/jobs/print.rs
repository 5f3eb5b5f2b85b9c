//! Jobs as text.

use proto::{JobState, JobView};
use status::strip_control_chars;

use crate::key::day;

/// Formats jobs as a table, one line each.
pub(super) fn table(jobs: &[JobView]) -> String {
    let head = [
        "ID", "STATE", "MODEL", "PRIORITY", "ATTEMPT", "ACCOUNT", "ACCEPTED", "ERROR",
    ];
    let head = head.map(str::to_owned);
    let rows: Vec<[String; 8]> = std::iter::once(head)
        .chain(jobs.iter().map(|job| {
            [
                job.id.to_string(),
                word(job.state).to_owned(),
                job.model.to_string(),
                job.priority.level().to_string(),
                job.attempt.to_string(),
                job.account.to_string(),
                day(job.created_at),
                job.error
                    .as_ref()
                    .map_or(String::new(), |error| error.code.to_string()),
            ]
        }))
        .collect();
    let mut text = String::new();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..8).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            // Numbers are right-aligned.
            3 | 4 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Formats all fields of one job, one line each.
pub(super) fn whole(job: &JobView) -> String {
    let error = job.error.as_ref();
    let lines = [
        ("id", Some(job.id.to_string())),
        ("state", Some(word(job.state).to_owned())),
        ("error", error.map(|error| error.code.to_string())),
        (
            "reason",
            error.map(|error| strip_control_chars(&error.message)),
        ),
        ("account", Some(job.account.to_string())),
        ("operation", Some(job.op.to_string())),
        ("model", Some(job.model.to_string())),
        ("worker", job.worker.as_ref().map(ToString::to_string)),
        ("priority", Some(job.priority.level().to_string())),
        ("attempt", Some(job.attempt.to_string())),
        ("accepted", Some(day(job.created_at))),
        ("deadline", job.deadline.map(day)),
        ("ended", job.finished_at.map(day)),
        ("jobs ahead", job.position.map(|n| n.to_string())),
        ("retried as", job.retried_as.map(|id| id.to_string())),
    ];
    let lines = lines.into_iter();
    let lines = lines.filter_map(|(name, value)| Some(format!("{name:<11}{}\n", value?)));
    lines.collect()
}

const fn word(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Leased => "leased",
        JobState::Completed => "completed",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use proto::{Account, ErrorCode, ErrorDetail, JobId, ModelName, Op, Priority, Timestamp};

    use super::*;

    fn job(n: u8, model: &str) -> JobView {
        JobView {
            id: JobId([n; 16]),
            state: JobState::Failed,
            account: Account::new("home").unwrap(),
            op: Op::Chat,
            model: ModelName::new(model).unwrap(),
            worker: None,
            priority: Priority::new(10).unwrap(),
            attempt: 5,
            created_at: Timestamp(1_700_000_000_000),
            finished_at: Some(Timestamp(1_700_000_001_000)),
            deadline: None,
            error: Some(ErrorDetail::new(
                ErrorCode::EngineFailed,
                "it \u{1b}[2J\u{202e}broke",
            )),
            position: None,
            expected_wait_ms: None,
            retried_as: None,
            webhook: None,
        }
    }

    #[test]
    fn a_table_stands_in_columns() {
        let text = table(&[job(1, "m"), job(2, "a-long-name:7b")]);
        let lines: Vec<&str> = text.lines().collect();
        let ids = ["01".repeat(16), "02".repeat(16)];
        let id = "ID".to_owned() + &" ".repeat(30);
        let wanted = [
            format!(
                "{id}  STATE   MODEL           PRIORITY  ATTEMPT  ACCOUNT  ACCEPTED              ERROR"
            ),
            format!(
                "{}  failed  m                     10        5  home     2023-11-14T22:13:20Z  engine_failed",
                ids[0]
            ),
            format!(
                "{}  failed  a-long-name:7b        10        5  home     2023-11-14T22:13:20Z  engine_failed",
                ids[1]
            ),
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn a_reason_moves_no_cursor() {
        let text = whole(&job(1, "m"));
        assert!(text.contains("reason     it [2Jbroke\n"), "{text:?}");
        assert!(!text.contains("deadline"), "what there is not is not shown");
    }
}
