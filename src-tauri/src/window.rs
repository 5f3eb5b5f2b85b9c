//! The main window: created when opened, destroyed when closed.

use tauri::{AppHandle, Manager as _, WebviewUrl, WebviewWindowBuilder, WindowEvent};

use crate::{
    pages,
    view::{View, Views},
};

/// The window's label.
pub(crate) const LABEL: &str = "main";

/// Opens the main window, or brings it to the front.
pub(crate) fn open(app: &AppHandle) -> tauri::Result<()> {
    if let Some(window) = app.get_webview_window(LABEL) {
        window.unminimize()?;
        window.show()?;
        return window.set_focus();
    }
    let window = WebviewWindowBuilder::new(app, LABEL, WebviewUrl::App("index.html".into()))
        .title("Hearth")
        .inner_size(640.0, 700.0)
        .min_inner_size(420.0, 360.0)
        .on_navigation(pages::is_ours)
        .on_new_window(pages::no_new_window)
        .build()?;
    let views = app.state::<Views>().inner().clone();
    window.on_window_event(move |event| {
        if matches!(event, WindowEvent::Destroyed) {
            views.update(View::window_closed);
        }
    });
    Ok(())
}
