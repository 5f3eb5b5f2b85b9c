//! The agent's metrics: their names and the text for a scraper. All values are read at scrape time;
//! no label contains data from a requester.

use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
    },
    registry::Registry,
};

/// The agent's counters and gauges at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentNow {
    /// Number of jobs whose answer the relay accepted.
    pub completed: u64,
    /// Number of jobs that failed for good.
    pub failed: u64,
    /// Number of jobs that were cancelled.
    pub cancelled: u64,
    /// Number of jobs returned to the relay, for another attempt or another worker.
    pub given_back: u64,
    /// Answer chunks from the engine.
    pub tokens: u64,
    /// Number of running jobs.
    pub running: usize,
    /// Whether the relay is connected.
    pub relay_up: bool,
    /// Whether the engine is up.
    pub engine_up: bool,
    /// Whether the owner paused the agent.
    pub paused: bool,
    /// Number of open connections of the status hub.
    pub subscribers: usize,
    /// Number of status updates published.
    pub statuses: u64,
}

/// The text for a scraper, in the format of [`crate::metrics::CONTENT_TYPE`].
#[must_use]
pub fn render(now: &AgentNow) -> String {
    let mut registry = Registry::with_prefix("hearth_agent");
    let all = &mut registry;
    let ended: Family<[(&str, &str); 1], Counter> = Family::default();
    for (state, jobs) in [
        ("completed", now.completed),
        ("failed", now.failed),
        ("cancelled", now.cancelled),
        ("given_back", now.given_back),
    ] {
        let counter = ended.get_or_create_owned(&[("state", state)]);
        counter.inc_by(jobs);
    }
    all.register("jobs_ended", "Jobs ended by this agent", ended);
    for (name, help, count) in [
        ("tokens", "Answer chunks from the engine", now.tokens),
        ("statuses", "Status updates published", now.statuses),
    ] {
        all.register(name, help, ConstCounter::new(count));
    }
    for (name, help, value) in [
        ("running_jobs", "Jobs that run", number(now.running)),
        (
            "relay_up",
            "Whether the relay is connected",
            now.relay_up.into(),
        ),
        (
            "engine_up",
            "Whether the engine is up",
            now.engine_up.into(),
        ),
        (
            "paused",
            "Whether the owner paused the agent",
            now.paused.into(),
        ),
        (
            "subscribers",
            "Open connections of the status hub",
            number(now.subscribers),
        ),
    ] {
        all.register(name, help, ConstGauge::new(value));
    }
    let mut text = String::with_capacity(2 * 1024);
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_did_and_does_stands_in_the_text() {
        let now = AgentNow {
            completed: 7,
            given_back: 2,
            tokens: 90,
            running: 1,
            relay_up: true,
            subscribers: 3,
            ..AgentNow::default()
        };
        let text = render(&now);
        for line in [
            r#"hearth_agent_jobs_ended_total{state="completed"} 7"#,
            r#"hearth_agent_jobs_ended_total{state="failed"} 0"#,
            r#"hearth_agent_jobs_ended_total{state="given_back"} 2"#,
            "hearth_agent_tokens_total 90",
            "hearth_agent_running_jobs 1",
            "hearth_agent_relay_up 1",
            "hearth_agent_engine_up 0",
            "hearth_agent_paused 0",
            "hearth_agent_subscribers 3",
            "hearth_agent_statuses_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
