//! Paints [`agent::Tray`]: an icon, a tooltip and a menu, each touched only where it changed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use agent::{Tray, TrayIcon, TrayItem};
use tauri::{
    AppHandle, Wry,
    image::Image,
    include_image,
    menu::{CheckMenuItem, IsMenuItem, Menu, MenuItem, PredefinedMenuItem},
    tray::{TrayIcon as Icon, TrayIconBuilder},
};

use crate::act_id;

/// The most letters in a line of the menu.
const WIDTH: usize = 56;
/// Part of the icon's name on the session bus.
const ID: &str = "hearth";

/// Why there is no tray, for the owner.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrayError {
    /// The library that draws trays on Linux is loaded at run time.
    #[error(
        "the tray needs a library that is not installed; on Debian and Ubuntu: \
         apt install libayatana-appindicator3-1; on Fedora: dnf install \
         libayatana-appindicator-gtk3; Hearth goes on without a tray, start it again to open its window"
    )]
    NoLibrary,
    /// The desktop refused.
    #[error("the tray cannot be drawn: {0}")]
    Desktop(#[from] tauri::Error),
}

/// The tray as it is on the screen.
pub(crate) struct Painted {
    icon: Icon,
    menu: Vec<Item>,
    shown: Tray,
}

/// One line of the menu on the screen.
enum Item {
    Line(MenuItem<Wry>),
    Separator(PredefinedMenuItem<Wry>),
    Action(MenuItem<Wry>),
    Check(CheckMenuItem<Wry>),
}

impl Painted {
    /// Puts a new icon into the tray. `on_click` gets the name of the clicked item.
    pub(crate) fn new(
        app: &AppHandle,
        tray: Tray,
        on_click: impl Fn(&AppHandle, &str) + Send + Sync + 'static,
    ) -> Result<Self, TrayError> {
        let menu = build(app, &tray.items)?;
        let native = native(app, &menu)?;
        let builder = TrayIconBuilder::with_id(ID)
            .icon(picture(tray.icon))
            .tooltip(&tray.tooltip)
            .menu(&native)
            .show_menu_on_left_click(true)
            .on_menu_event(move |app, event| on_click(app, event.id().as_ref()));
        // The only way it has to say that its library is missing is to panic.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let built = catch_unwind(AssertUnwindSafe(|| builder.build(app)));
        std::panic::set_hook(hook);
        let icon = built.map_err(|_| TrayError::NoLibrary)??;
        Ok(Self {
            icon,
            menu,
            shown: tray,
        })
    }

    /// Draws what differs from what is shown.
    pub(crate) fn paint(&mut self, app: &AppHandle, tray: Tray) -> tauri::Result<()> {
        if tray.icon != self.shown.icon {
            self.icon.set_icon(Some(picture(tray.icon)))?;
        }
        if tray.tooltip != self.shown.tooltip {
            self.icon.set_tooltip(Some(&tray.tooltip))?;
        }
        if same_shape(&tray.items, &self.shown.items) {
            for ((item, new), old) in self.menu.iter().zip(&tray.items).zip(&self.shown.items) {
                item.become_like(new, old)?;
            }
        } else {
            self.menu = build(app, &tray.items)?;
            self.icon.set_menu(Some(native(app, &self.menu)?))?;
        }
        self.shown = tray;
        Ok(())
    }

    /// Puts every check mark back to what was last painted: a click moves the mark by itself,
    /// before anybody knows whether it will be so.
    pub(crate) fn restore_marks(&self) -> tauri::Result<()> {
        for (item, shown) in self.menu.iter().zip(&self.shown.items) {
            if let (Item::Check(item), TrayItem::Check { checked, .. }) = (item, shown) {
                item.set_checked(*checked)?;
            }
        }
        Ok(())
    }
}

impl Item {
    fn new(app: &AppHandle, item: &TrayItem) -> tauri::Result<Self> {
        let accelerator = None::<&str>;
        Ok(match item {
            TrayItem::Line(text) => {
                Self::Line(MenuItem::new(app, plain(text), false, accelerator)?)
            }
            TrayItem::Separator => Self::Separator(PredefinedMenuItem::separator(app)?),
            TrayItem::Action { act, label } => Self::Action(MenuItem::with_id(
                app,
                act_id::of(*act),
                plain(label),
                true,
                accelerator,
            )?),
            TrayItem::Check {
                act,
                label,
                checked,
            } => Self::Check(CheckMenuItem::with_id(
                app,
                act_id::of(*act),
                plain(label),
                true,
                *checked,
                accelerator,
            )?),
        })
    }

    /// Takes the text and the mark of `new`, which has the same shape as `old`.
    fn become_like(&self, new: &TrayItem, old: &TrayItem) -> tauri::Result<()> {
        match (self, new) {
            (Self::Line(item), TrayItem::Line(text)) if new != old => item.set_text(plain(text)),
            (Self::Action(item), TrayItem::Action { label, .. }) if new != old => {
                item.set_text(plain(label))
            }
            (Self::Check(item), TrayItem::Check { label, checked, .. }) if new != old => {
                item.set_text(plain(label))?;
                item.set_checked(*checked)
            }
            _ => Ok(()),
        }
    }

    fn native(&self) -> &dyn IsMenuItem<Wry> {
        match self {
            Self::Line(item) | Self::Action(item) => item,
            Self::Separator(item) => item,
            Self::Check(item) => item,
        }
    }
}

fn build(app: &AppHandle, items: &[TrayItem]) -> tauri::Result<Vec<Item>> {
    items.iter().map(|item| Item::new(app, item)).collect()
}

fn native(app: &AppHandle, items: &[Item]) -> tauri::Result<Menu<Wry>> {
    Menu::with_items(app, &items.iter().map(Item::native).collect::<Vec<_>>())
}

/// Whether both menus have the same kinds of items doing the same things in the same places.
fn same_shape(new: &[TrayItem], old: &[TrayItem]) -> bool {
    let same = |(new, old): (&TrayItem, &TrayItem)| match (new, old) {
        (TrayItem::Line(_), TrayItem::Line(_)) | (TrayItem::Separator, TrayItem::Separator) => true,
        (TrayItem::Action { act: new, .. }, TrayItem::Action { act: old, .. })
        | (TrayItem::Check { act: new, .. }, TrayItem::Check { act: old, .. }) => new == old,
        _ => false,
    };
    new.len() == old.len() && new.iter().zip(old).all(same)
}

/// A menu takes `&` as the mark of a key, in a name it is a letter; and it is as wide as its
/// longest line.
fn plain(text: &str) -> String {
    let mut plain = text.chars().take(WIDTH).collect::<String>();
    if plain.len() < text.len() {
        plain.pop();
        plain.push('…');
    }
    plain.replace('&', "&&")
}

fn picture(icon: TrayIcon) -> Image<'static> {
    match icon {
        TrayIcon::Ready => include_image!("../icons/tray-ready.png"),
        TrayIcon::Working => include_image!("../icons/tray-working.png"),
        TrayIcon::Paused => include_image!("../icons/tray-paused.png"),
        TrayIcon::Connecting => include_image!("../icons/tray-connecting.png"),
        TrayIcon::Offline => include_image!("../icons/tray-offline.png"),
    }
}

#[cfg(test)]
mod tests {
    use agent::TrayAct;
    use proto::status::Command;

    use super::*;

    fn action(command: Command, label: &str) -> TrayItem {
        TrayItem::Action {
            act: TrayAct::Command(command),
            label: label.into(),
        }
    }

    #[test]
    fn a_menu_is_rebuilt_only_when_what_it_does_changed() {
        let paused = [
            TrayItem::Line("Paused".into()),
            action(Command::ToggleMonitoring, "Resume"),
        ];
        let ready = [
            TrayItem::Line("Ready".into()),
            action(Command::ToggleMonitoring, "Pause"),
        ];
        assert!(same_shape(&ready, &paused));
        assert!(!same_shape(&ready, &paused[..1]));
        let other = [
            TrayItem::Line("Ready".into()),
            action(Command::Quit, "Pause"),
        ];
        assert!(!same_shape(&other, &ready));
        let swapped = [
            TrayItem::Separator,
            action(Command::ToggleMonitoring, "Pause"),
        ];
        assert!(!same_shape(&swapped, &ready));
    }

    #[test]
    fn an_ampersand_in_a_name_stays_a_letter() {
        assert_eq!(plain("R&D _1_"), "R&&D _1_");
    }

    #[test]
    fn a_long_line_does_not_make_the_menu_as_wide_as_the_screen() {
        let short = plain(&"ż".repeat(500));
        assert_eq!(short.chars().count(), WIDTH);
        assert!(short.ends_with('…'));
    }
}
