//! Names of Hearth's own headers, and of the less common others that it reads or sends. Pages in a
//! browser may use all of them, see [`crate::cors`].

pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
pub(crate) const DEADLINE: &str = "x-hearth-deadline-ms";
pub(crate) const PRIORITY: &str = "x-hearth-priority";
/// Headers that name the worker; either may be used.
pub(crate) const WORKER: [&str; 2] = ["x-hearth-worker", "x-device-id"];
pub(crate) const PLACE: &str = "x-hearth-thinking-status";
pub(crate) const LAST_EVENT: &str = "last-event-id";
/// Headers that a requester may send.
#[cfg(test)]
pub(crate) const READ: [&str; 7] = [
    IDEMPOTENCY_KEY,
    DEADLINE,
    PRIORITY,
    WORKER[0],
    WORKER[1],
    PLACE,
    LAST_EVENT,
];

pub(crate) const CODE: &str = "x-hearth-error";
pub(crate) const JOB: &str = "x-hearth-job";
pub(crate) const QUEUE_POSITION: &str = "x-hearth-queue-position";
pub(crate) const EXPECTED_WAIT: &str = "x-hearth-expected-wait-ms";
pub(crate) const WORKERS_UP: &str = "x-hearth-workers";
pub(crate) const REPLAYED: &str = "idempotent-replayed";
/// Headers that a response may have.
#[cfg(test)]
pub(crate) const SENT: [&str; 8] = [
    CODE,
    JOB,
    QUEUE_POSITION,
    EXPECTED_WAIT,
    WORKERS_UP,
    REPLAYED,
    "link",
    "retry-after",
];

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Collects the quoted names that begin like ours, from all sources below a folder.
    fn names(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                names(&path, found);
                continue;
            }
            let (code, file) = (fs::read_to_string(&path).unwrap(), path.display());
            for quoted in code.split("\"x-hearth-").skip(1) {
                let name = quoted.split('"').next().unwrap();
                found.push((format!("x-hearth-{name}"), file.to_string()));
            }
        }
    }

    #[test]
    fn every_header_of_ours_has_its_name_here() {
        let mut found = Vec::new();
        names(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut found,
        );
        // Lists of header names for browsers, and a field of the OpenAPI document.
        let is_list = |file: &str| file.ends_with("/headers.rs") || file.ends_with("/cors.rs");
        found.retain(|(name, file)| !is_list(file) && name != "x-hearth-scope");
        assert_eq!(found, [], "written out elsewhere");
        let known: Vec<_> = super::READ.iter().chain(&super::SENT).collect();
        let code = include_str!("headers.rs");
        let code = code.split("mod tests").next().unwrap();
        for quoted in code.split("\"x-hearth-").skip(1) {
            let name = format!("x-hearth-{}", quoted.split('"').next().unwrap());
            assert!(known.contains(&&&*name), "{name}");
        }
    }
}
