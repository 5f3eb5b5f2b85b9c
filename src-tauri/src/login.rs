//! The start at login: a desktop entry on Linux, the system's own mechanism elsewhere.

use tauri::{AppHandle, Builder, Wry};

#[cfg(target_os = "linux")]
mod entry;

/// Prepares the app to start at login with these options.
#[cfg(target_os = "linux")]
pub(crate) fn prepare(builder: Builder<Wry>, options: Vec<String>) -> Builder<Wry> {
    builder.manage(Options(options))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn prepare(builder: Builder<Wry>, options: Vec<String>) -> Builder<Wry> {
    let plugin = tauri_plugin_autostart::Builder::new()
        .app_name("hearth-desktop")
        .args(options);
    builder.plugin(plugin.build())
}

/// The options of a start at login.
#[cfg(target_os = "linux")]
struct Options(Vec<String>);

/// Enables or disables the start at login.
#[cfg(target_os = "linux")]
pub(crate) fn set(app: &AppHandle, on: bool) -> Result<(), String> {
    use tauri::Manager as _;

    let path = entry::path()?;
    let set = if on {
        let text = entry::text(&entry::program(&app.env())?, &app.state::<Options>().0);
        entry::write(&path, &text)
    } else {
        entry::remove(&path)
    };
    set.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn set(app: &AppHandle, on: bool) -> Result<(), String> {
    use tauri_plugin_autostart::ManagerExt as _;

    let manager = app.autolaunch();
    let set = if on {
        manager.enable()
    } else {
        manager.disable()
    };
    set.map_err(|error| error.to_string())
}

/// Whether the app starts at login.
#[cfg(target_os = "linux")]
pub(crate) fn is_set(_: &AppHandle) -> bool {
    entry::path().is_ok_and(|path| path.exists())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn is_set(app: &AppHandle) -> bool {
    use tauri_plugin_autostart::ManagerExt as _;

    app.autolaunch().is_enabled().unwrap_or(false)
}
