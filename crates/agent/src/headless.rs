use crate::{Shell, Tray};

/// The shell of `hearth agent`: no desktop, so what it would paint goes to the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headless;

impl Shell for Headless {
    fn set_tray(&mut self, tray: Tray) {
        tracing::info!("{}", tray.tooltip);
    }

    fn show_overlay(&mut self, _visible: bool) {}

    fn has_window(&self) -> bool {
        false
    }

    fn open_window(&mut self) {}

    fn set_autostart(&mut self, _on: bool) -> Result<(), String> {
        Err("this agent has no desktop; let the system start `hearth agent`".to_owned())
    }

    fn autostart(&self) -> bool {
        false
    }

    fn quit(&mut self) {}
}
