//! Generates the context of the app. Its commands are listed here, so that each window gets only
//! those of its capability file.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let commands = tauri_build::AppManifest::new().commands(&[
        "snapshot",
        "act",
        "set_autostart",
        "decide",
        "revoke",
    ]);
    tauri_build::try_build(tauri_build::Attributes::new().app_manifest(commands))?;
    Ok(())
}
