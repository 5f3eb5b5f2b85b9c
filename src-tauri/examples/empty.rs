//! The floor of the idle benchmark: a window of the overlay's size with nothing in it.

use tauri::{WebviewUrl, WebviewWindowBuilder};

fn main() -> tauri::Result<()> {
    tauri::Builder::default()
        .setup(|app| {
            let nothing = "about:blank".parse().map(WebviewUrl::External)?;
            WebviewWindowBuilder::new(app, "empty", nothing)
                .title("Empty")
                .inner_size(288.0, 64.0)
                .build()?;
            Ok(())
        })
        .run(tauri::generate_context!())
}
