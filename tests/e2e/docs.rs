//! Checks that documents name what the code defines.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The contents of all Rust sources below a folder of the project.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "node_modules" && !name.starts_with('.') {
            text += &sources(&path);
        } else if name.ends_with(".rs") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

/// Returns the names in backquotes in the given column (counted from 0) of the tables of a page.
fn named(page: &str, column: usize) -> Vec<&str> {
    let rows = page.lines().filter(|line| line.starts_with("| "));
    rows.filter_map(|row| row.split(" | ").nth(column))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

/// Every name is that of a function of the project.
fn assert_exist(root: &Path, tests: &[&str]) {
    assert!(tests.len() > 20, "{tests:?}");
    let sources = sources(root);
    for test in tests {
        assert!(
            sources.contains(&format!("fn {test}(")),
            "no test is called {test}"
        );
    }
}

#[test]
fn every_test_that_the_promises_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/PROMISES.md")).unwrap();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let is_head = row.starts_with("| Promise |");
        assert!(is_head || !named(row, 1).is_empty(), "no test: {row}");
    }
    assert_exist(&root, &named(&page, 1));
}

#[test]
fn every_test_that_the_hubs_threats_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/PROTOCOL.md")).unwrap();
    let (_, threats) = page.split_once("| # | Threat | Test |").unwrap();
    assert_exist(&root, &named(threats, 2));
}

#[test]
fn every_crate_is_in_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    for entry in fs::read_dir(root.join("crates")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(page.contains(&format!("| `{name}` |")), "{name} is missing");
    }
}
