//! The baseline of the idle benchmark: a window of the overlay's size with an empty page.
//!
//! It loads a page instead of `about:blank`, for which `WebKitGTK` starts no web process.

use tauri::{WebviewUrl, WebviewWindowBuilder, http::Response};

const PAGE: &[u8] = b"<!doctype html><title>Empty</title>";

fn main() -> tauri::Result<()> {
    tauri::Builder::default()
        .register_uri_scheme_protocol("empty", |_, _| {
            let mut page = Response::new(PAGE);
            let html = tauri::http::HeaderValue::from_static("text/html");
            page.headers_mut().insert("content-type", html);
            page
        })
        .setup(|app| {
            let page = "empty://localhost/".parse()?;
            WebviewWindowBuilder::new(app, "empty", WebviewUrl::CustomProtocol(page))
                .title("Empty")
                .inner_size(288.0, 64.0)
                .build()?;
            Ok(())
        })
        .run(tauri::generate_context!())
}
