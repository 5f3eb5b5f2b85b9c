//! Draws [`agent::Tray`]: an icon, a tooltip and a menu, each updated only where it changed.

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

/// Maximum length of a menu item, in characters.
const WIDTH: usize = 56;
/// Part of the icon's name on the session bus.
const ID: &str = "hearth";

/// The reason why there is no tray, for the owner.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrayError {
    /// The tray library is missing; on Linux it is loaded at run time.
    #[error(
        "the tray needs a library that is not installed; on Debian and Ubuntu: \
         apt install libayatana-appindicator3-1; on Fedora: dnf install \
         libayatana-appindicator-gtk3; Hearth runs without a tray; start it again to open its window"
    )]
    NoLibrary,
    /// The desktop refused.
    #[error("the tray cannot be drawn: {0}")]
    Desktop(#[from] tauri::Error),
}

/// The tray as it is on the screen.
pub(crate) struct Painted {
    icon: Icon,
    menu: Menu<Wry>,
    lines: Vec<Item>,
    shown: Tray,
}

/// One menu item on the screen.
enum Item {
    Line(MenuItem<Wry>),
    Separator(PredefinedMenuItem<Wry>),
    Action(MenuItem<Wry>),
    Check(CheckMenuItem<Wry>),
}

impl Painted {
    /// Adds a new icon to the tray. `on_click` receives the id of the clicked item.
    pub(crate) fn new(
        app: &AppHandle,
        tray: Tray,
        on_click: impl Fn(&AppHandle, &str) + Send + Sync + 'static,
    ) -> Result<Self, TrayError> {
        let lines = build(app, &tray.items)?;
        let menu = Menu::with_items(app, &natives(&lines))?;
        let builder = TrayIconBuilder::with_id(ID)
            .icon(picture(tray.icon))
            .tooltip(&tray.tooltip)
            .menu(&menu)
            .show_menu_on_left_click(true)
            .on_menu_event(move |app, event| on_click(app, event.id().as_ref()));
        // The library reports by a panic that its shared object is missing.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let built = catch_unwind(AssertUnwindSafe(|| builder.build(app)));
        std::panic::set_hook(hook);
        let icon = built.map_err(|_| TrayError::NoLibrary)??;
        Ok(Self {
            icon,
            menu,
            lines,
            shown: tray,
        })
    }

    /// Updates what differs from the shown tray.
    pub(crate) fn paint(&mut self, app: &AppHandle, tray: Tray) -> tauri::Result<()> {
        if tray.icon != self.shown.icon {
            self.icon.set_icon(Some(picture(tray.icon)))?;
        }
        if tray.tooltip != self.shown.tooltip {
            self.icon.set_tooltip(Some(&tray.tooltip))?;
        }
        self.paint_menu(app, &tray.items)?;
        self.shown = tray;
        Ok(())
    }

    /// Updates the menu in place: items that stay keep their position under the pointer, only the
    /// others are inserted or removed, and the menu stays open.
    fn paint_menu(&mut self, app: &AppHandle, new: &[TrayItem]) -> tauri::Result<()> {
        let (above, below) = kept(new, &self.shown.items);
        let gone = above..self.lines.len() - below;
        let came = build(app, &new[above..new.len() - below])?;
        for line in &self.lines[gone.clone()] {
            self.menu.remove(line.native())?;
        }
        self.menu.insert_items(&natives(&came), above)?;
        self.lines.splice(gone, came);

        let shown = &self.shown.items;
        let pairs = new
            .iter()
            .zip(shown)
            .take(above)
            .chain((new[new.len() - below..].iter()).zip(&shown[shown.len() - below..]));
        let stayed = self.lines[..above]
            .iter()
            .chain(&self.lines[self.lines.len() - below..]);
        for (line, (new, old)) in stayed.zip(pairs) {
            line.become_like(new, old)?;
        }
        Ok(())
    }

    /// Restores every check mark to the last painted state: a click toggles the mark at once,
    /// before the agent has decided.
    pub(crate) fn restore_marks(&self) -> tauri::Result<()> {
        for (item, shown) in self.lines.iter().zip(&self.shown.items) {
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

    /// Takes the text and check mark of `new`, which has the same shape as `old`.
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

fn natives(items: &[Item]) -> Vec<&dyn IsMenuItem<Wry>> {
    items.iter().map(Item::native).collect()
}

/// The number of items at the top and at the bottom that have the same action in both menus.
fn kept(new: &[TrayItem], old: &[TrayItem]) -> (usize, usize) {
    let alike = |(new, old): &(&TrayItem, &TrayItem)| is_alike(new, old);
    let above = new.iter().zip(old).take_while(alike).count();
    let (new, old) = (&new[above..], &old[above..]);
    let below = new.iter().rev().zip(old.iter().rev()).take_while(alike);
    (above, below.count())
}

/// Whether one item can become the other by changing its text or check mark only.
fn is_alike(new: &TrayItem, old: &TrayItem) -> bool {
    match (new, old) {
        (TrayItem::Line(_), TrayItem::Line(_)) | (TrayItem::Separator, TrayItem::Separator) => true,
        (TrayItem::Action { act: new, .. }, TrayItem::Action { act: old, .. })
        | (TrayItem::Check { act: new, .. }, TrayItem::Check { act: old, .. }) => new == old,
        _ => false,
    }
}

/// Prepares a label: `&` would mark an access key, and the menu is as wide as its longest item.
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
    fn what_stays_in_the_menu_is_not_touched_when_jobs_come_and_go() {
        let line = |text: &str| TrayItem::Line(text.into());
        let toggle = |label: &str| action(Command::ToggleMonitoring, label);
        let quit = || action(Command::Quit, "Quit");
        let menu = |jobs: &[&str], label: &str| {
            let mut items = vec![line("Ready")];
            items.extend(jobs.iter().map(|job| line(job)));
            items.extend([TrayItem::Separator, toggle(label), quit()]);
            items
        };
        let (none, one, two) = (
            menu(&[], "Pause"),
            menu(&["a"], "Pause"),
            menu(&["a", "b"], "Pause"),
        );
        assert_eq!(kept(&one, &none), (1, 3));
        assert_eq!(kept(&none, &two), (1, 3));
        assert_eq!(kept(&two, &one), (2, 3));
        assert_eq!(
            kept(&menu(&["z"], "Resume"), &one),
            (5, 0),
            "a new text is the same line"
        );
        assert_eq!(kept(&[], &one), (0, 0));
        let other = [line("Ready"), TrayItem::Separator, quit()];
        assert_eq!(kept(&other, &none), (2, 1));
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
