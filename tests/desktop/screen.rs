//! The screen, as the X server reports it.

use std::{collections::HashSet, path::PathBuf, process::Command};

use x11rb::{
    connection::Connection as _,
    protocol::{
        Event,
        shape::{ConnectionExt as _, SK},
        xproto::{
            Atom, AtomEnum, BUTTON_PRESS_EVENT, BUTTON_RELEASE_EVENT, ClientMessageEvent,
            ConfigureWindowAux, ConnectionExt as _, CreateWindowAux, EventMask, ImageFormat,
            MOTION_NOTIFY_EVENT, StackMode, Window as Id, WindowClass,
        },
        xtest::ConnectionExt as _,
    },
    rust_connection::RustConnection,
    wrapper::ConnectionExt as _,
};

use crate::poll::until;

/// The value of `_NET_WM_DESKTOP` of a window on all desktops.
pub(crate) const AT_ALL_DESKTOPS: u32 = u32::MAX;

pub(crate) struct Screen {
    x: RustConnection,
    display: String,
    root: Id,
}

#[derive(Clone, Copy)]
pub(crate) struct Rgb(pub(crate) u8, pub(crate) u8, pub(crate) u8);

impl From<Rgb> for u32 {
    fn from(Rgb(red, green, blue): Rgb) -> Self {
        Self::from_be_bytes([0, red, green, blue])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) x: i16,
    pub(crate) y: i16,
    pub(crate) width: u16,
    pub(crate) height: u16,
}

impl Place {
    pub(crate) fn centre(self) -> (i16, i16) {
        let half = |length: u16| i16::try_from(length / 2).unwrap();
        (self.x + half(self.width), self.y + half(self.height))
    }
}

impl Screen {
    pub(crate) fn open(display: &str) -> Self {
        let (x, number) = x11rb::connect(Some(display)).unwrap();
        let root = x.setup().roots[number].root;
        Self {
            x,
            display: display.to_owned(),
            root,
        }
    }

    /// Whether a window manager and a compositor are running.
    pub(crate) fn is_ready(&self) -> bool {
        let compositor = self
            .x
            .get_selection_owner(self.atom("_NET_WM_CM_S0"))
            .unwrap();
        !self
            .numbers(self.root, "_NET_SUPPORTING_WM_CHECK")
            .is_empty()
            && compositor.reply().unwrap().owner != x11rb::NONE
    }

    /// Waits for the window with this title to be on the screen.
    pub(crate) async fn window(&self, title: &str) -> Window<'_> {
        let what = format!("a window {title:?}");
        until(&what, async || {
            self.find(title).filter(|window| window.is_visible())
        })
        .await
    }

    /// Waits until no window has this title.
    pub(crate) async fn no_window(&self, title: &str) {
        until(&format!("no window {title:?}"), async || {
            self.find(title).is_none().then_some(())
        })
        .await;
    }

    fn find(&self, title: &str) -> Option<Window<'_>> {
        let windows = self.numbers(self.root, "_NET_CLIENT_LIST");
        let id = windows
            .into_iter()
            .find(|id| self.text(*id, "_NET_WM_NAME") == title)?;
        Some(Window { screen: self, id })
    }

    /// The window with the keyboard focus.
    pub(crate) fn focused(&self) -> Id {
        self.x.get_input_focus().unwrap().reply().unwrap().focus
    }

    /// A window below all others, with one colour on the left and another on the right; records
    /// clicks.
    pub(crate) fn wallpaper(&self, left: Rgb, right: Rgb) -> Wallpaper<'_> {
        let id = self.x.generate_id().unwrap();
        let looks = CreateWindowAux::new()
            .background_pixel(u32::from(left))
            .override_redirect(1)
            .event_mask(EventMask::BUTTON_PRESS);
        let (width, height) = (1280, 800);
        let class = WindowClass::INPUT_OUTPUT;
        self.x
            .create_window(0, id, self.root, 0, 0, width, height, 0, class, 0, &looks)
            .unwrap()
            .check()
            .unwrap();
        let lowest = ConfigureWindowAux::new().stack_mode(StackMode::BELOW);
        self.x.configure_window(id, &lowest).unwrap();
        self.x.map_window(id).unwrap();
        let half = self.x.generate_id().unwrap();
        let looks = CreateWindowAux::new().background_pixel(u32::from(right));
        let (at, width) = (1124, 156);
        self.x
            .create_window(0, half, id, at, 0, width, height, 0, class, 0, &looks)
            .unwrap();
        self.x.map_window(half).unwrap();
        self.x.sync().unwrap();
        Wallpaper { screen: self, id }
    }

    /// Moves the pointer there and clicks its first button.
    pub(crate) fn click(&self, x: i16, y: i16) {
        let fake = |kind: u8, detail: u8| {
            self.x
                .xtest_fake_input(kind, detail, 0, self.root, x, y, 0)
                .unwrap()
                .check()
                .unwrap();
        };
        fake(MOTION_NOTIFY_EVENT, 0);
        fake(BUTTON_PRESS_EVENT, 1);
        fake(BUTTON_RELEASE_EVENT, 1);
    }

    /// Waits until something is drawn there: text has many shades, an empty page has few.
    pub(crate) async fn until_drawn(&self, place: Place) {
        let Place {
            x,
            y,
            width,
            height,
        } = place;
        until("letters on the screen", async || {
            let form = ImageFormat::Z_PIXMAP;
            let image = self
                .x
                .get_image(form, self.root, x, y, width, height, u32::MAX)
                .unwrap();
            let image = image.reply().unwrap().data;
            let shades: HashSet<_> = image.chunks_exact(4).collect();
            (shades.len() > 16).then_some(())
        })
        .await;
    }

    /// Saves a screenshot once the screen is still.
    pub(crate) async fn shoot(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("output");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        let mut before = Vec::new();
        // Drawing is complete when two screenshots in a row are equal.
        until("a still screen", async || {
            let shot = Command::new("import")
                .args(["-display", &self.display, "-window", "root"])
                .arg(&path)
                .status();
            assert!(
                shot.is_ok_and(|status| status.success()),
                "import (imagemagick) failed"
            );
            let now = std::fs::read(&path).unwrap();
            let still = now == before;
            before = now;
            still.then_some(())
        })
        .await;
    }

    fn atom(&self, name: &str) -> Atom {
        self.x
            .intern_atom(false, name.as_bytes())
            .unwrap()
            .reply()
            .unwrap()
            .atom
    }

    fn numbers(&self, window: Id, property: &str) -> Vec<u32> {
        let property = self.atom(property);
        let cookie = self
            .x
            .get_property(false, window, property, AtomEnum::ANY, 0, 1024)
            .unwrap();
        let Ok(reply) = cookie.reply() else {
            return Vec::new();
        };
        reply.value32().map(Iterator::collect).unwrap_or_default()
    }

    fn text(&self, window: Id, property: &str) -> String {
        let property = self.atom(property);
        let cookie = self
            .x
            .get_property(false, window, property, AtomEnum::ANY, 0, 1024)
            .unwrap();
        cookie.reply().map_or_else(
            |_| String::new(),
            |reply| String::from_utf8_lossy(&reply.value).into_owned(),
        )
    }
}

pub(crate) struct Window<'a> {
    screen: &'a Screen,
    pub(crate) id: Id,
}

impl Window<'_> {
    /// Waits until the window manager has set this state.
    pub(crate) async fn has_state(&self, state: &str) {
        let wanted = self.screen.atom(state);
        until(state, async || {
            self.screen
                .numbers(self.id, "_NET_WM_STATE")
                .contains(&wanted)
                .then_some(())
        })
        .await;
    }

    pub(crate) fn desktop(&self) -> Option<u32> {
        self.screen
            .numbers(self.id, "_NET_WM_DESKTOP")
            .first()
            .copied()
    }

    /// Waits until the window is at this place.
    pub(crate) async fn lies_at(&self, place: Place) {
        until(&format!("{place:?}"), async || {
            (self.place() == place).then_some(())
        })
        .await;
    }

    /// Waits until all but one pixel lets clicks through. One still catches them, because an empty
    /// shape would mean the whole window.
    pub(crate) async fn lets_clicks_through(&self) {
        until("a window that lets clicks through", async || {
            (self.input_shape() == [(0, 0, 1, 1)]).then_some(())
        })
        .await;
    }

    pub(crate) fn place(&self) -> Place {
        let x = &self.screen.x;
        let size = x.get_geometry(self.id).unwrap().reply().unwrap();
        let at = x
            .translate_coordinates(self.id, self.screen.root, 0, 0)
            .unwrap()
            .reply()
            .unwrap();
        Place {
            x: at.dst_x,
            y: at.dst_y,
            width: size.width,
            height: size.height,
        }
    }

    /// The region in which the window takes clicks.
    fn input_shape(&self) -> Vec<(i16, i16, u16, u16)> {
        let cookie = self
            .screen
            .x
            .shape_get_rectangles(self.id, SK::INPUT)
            .unwrap();
        let parts = cookie.reply().unwrap().rectangles;
        parts
            .iter()
            .map(|part| (part.x, part.y, part.width, part.height))
            .collect()
    }

    /// Changes the size of the window.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let size = ConfigureWindowAux::new().width(width).height(height);
        self.screen.x.configure_window(self.id, &size).unwrap();
        self.screen.x.flush().unwrap();
    }

    /// Closes the window as the title bar's button does.
    pub(crate) fn close(&self) {
        let message = ClientMessageEvent::new(
            32,
            self.id,
            self.screen.atom("_NET_CLOSE_WINDOW"),
            [0_u32; 5],
        );
        let mask = EventMask::SUBSTRUCTURE_REDIRECT | EventMask::SUBSTRUCTURE_NOTIFY;
        self.screen
            .x
            .send_event(false, self.screen.root, mask, message)
            .unwrap();
        self.screen.x.flush().unwrap();
    }

    fn is_visible(&self) -> bool {
        let state = self
            .screen
            .x
            .get_window_attributes(self.id)
            .unwrap()
            .reply();
        state.is_ok_and(|state| u8::from(state.map_state) == 2)
    }
}

pub(crate) struct Wallpaper<'a> {
    screen: &'a Screen,
    id: Id,
}

impl Wallpaper<'_> {
    /// The position of a click.
    pub(crate) async fn clicked(&self) -> (i16, i16) {
        until("a click on what lies below", async || {
            match self.screen.x.poll_for_event().unwrap() {
                Some(Event::ButtonPress(press)) if press.event == self.id => {
                    Some((press.root_x, press.root_y))
                }
                _ => None,
            }
        })
        .await
    }
}
