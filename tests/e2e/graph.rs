//! Checks the crate graph: a crate depends only on lower layers.

use std::{collections::BTreeMap, process::Command};

/// The allowed dependencies inside the workspace, from the bottom up.
const ALLOWED: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("queue", &["proto"]),
    ("dialect", &["proto"]),
    ("status", &["proto"]),
    ("engine", &["proto"]),
    ("engine-builtin", &["proto", "engine"]),
    ("telemetry", &["proto"]),
    ("queue-sqlite", &["proto", "queue"]),
    ("worker", &["proto", "dialect", "engine", "telemetry"]),
    (
        "relay",
        &["proto", "queue", "dialect", "telemetry", "queue-sqlite"],
    ),
    (
        "agent",
        &[
            "proto",
            "worker",
            "status",
            "engine",
            "engine-builtin",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "proto",
            "relay",
            "agent",
            "status",
            "queue",
            "engine",
            "telemetry",
        ],
    ),
    ("desktop", &["proto", "agent", "status", "telemetry"]),
];

#[test]
fn nobody_looks_up() {
    let allowed = ALLOWED.iter().copied().collect::<BTreeMap<_, _>>();
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .output()
        .unwrap();
    let meta = serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap();
    let short = |name: &str| name.strip_prefix("hearth-").unwrap().to_owned();

    let mut seen = 0;
    for package in meta["packages"].as_array().unwrap() {
        let name = short(package["name"].as_str().unwrap());
        if ["tests", "fuzz", "benches"].contains(&name.as_str()) {
            continue;
        }
        seen += 1;
        let allowed = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is not in the graph: add it, with its layer"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let ours = dependency["path"].is_string();
            let only_in_tests = dependency["kind"] == "dev";
            if ours && !only_in_tests {
                let wanted = short(dependency["name"].as_str().unwrap());
                assert!(
                    allowed.contains(&wanted.as_str()),
                    "{name} must not depend on {wanted}"
                );
            }
        }
    }
    assert_eq!(
        seen,
        ALLOWED.len(),
        "a crate in the graph is gone: take it out"
    );
}
