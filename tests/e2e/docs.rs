//! Pages that list what the code defines are kept by a test, not by hand.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use proto::ErrorCode;

fn error_page() -> String {
    let mut page = String::from(
        "# Error codes\n\n\
         Every native error is `{\"error\":{\"code\":\"…\",\"message\":\"…\"}}`. Clients switch on the \
         code; the message is for people\nand may change. Ollama and OpenAI routes carry the same \
         failures in the shape their clients expect.\n\n\
         | Code | HTTP status | Meaning |\n|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        writeln!(
            page,
            "| `{code}` | {} | {} |",
            code.http_status(),
            code.meaning()
        )
        .unwrap();
    }
    page
}

#[test]
fn the_page_of_error_codes_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ERRORS.md");
    let wanted = error_page();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        page, wanted,
        "run: UPDATE=1 cargo test -p hearth-tests --test e2e docs"
    );
}

/// Every Rust source below a folder of the project, joined.
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

#[test]
fn every_test_that_the_architecture_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let sources = sources(&root);
    let (_, invariants) = page.split_once("## Invariants").unwrap();
    let (invariants, _) = invariants.split_once("\n## ").unwrap();
    let named: Vec<&str> = invariants.split('`').skip(1).step_by(2).collect();
    assert!(named.len() > 20, "{named:?}");
    for test in named {
        assert!(
            sources.contains(&format!("fn {test}(")),
            "no test is called {test}"
        );
    }
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
