//! Pages that list what the code defines are kept by a test, not by hand.

use std::{fmt::Write as _, fs, path::Path};

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
