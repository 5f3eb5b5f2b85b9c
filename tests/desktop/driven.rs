//! The app under a browser's driver, with its tray and a client of its hub.

use crate::{
    app::{App, Hub, Look},
    pages::Browser,
    session::DesktopSession,
    tray::{Tray, Watcher},
};

/// The driven app. Its fields are dropped in this order, the desktop last.
pub(crate) struct Driven {
    pub(crate) hub: Hub,
    pub(crate) tray: Tray,
    app: App,
    pub(crate) browser: Browser,
    _watcher: Watcher,
    pub(crate) session: DesktopSession,
}

impl Driven {
    /// Starts the app without a relay.
    pub(crate) async fn start() -> Self {
        let session = DesktopSession::new().await;
        let watcher = Watcher::new(&session).await;
        let browser = Browser::start(&session, Look::Light).await;
        Self::by(session, watcher, browser).await
    }

    /// Starts the app with a key that a start at login could not repeat.
    pub(crate) async fn with_a_key_in_the_environment() -> Self {
        let session = DesktopSession::new().await;
        let watcher = Watcher::new(&session).await;
        let browser = Browser::with_a_key_in_the_environment(&session, Look::Light).await;
        Self::by(session, watcher, browser).await
    }

    /// The parameters are in reverse order of their drops: the desktop is dropped last also if the
    /// app does not start.
    async fn by(session: DesktopSession, watcher: Watcher, browser: Browser) -> Self {
        let app = browser.app(&session).await;
        Self {
            hub: app.hub(),
            tray: Tray::of(&watcher).await,
            app,
            browser,
            _watcher: watcher,
            session,
        }
    }

    /// Stops the app in the tray, then the driver.
    pub(crate) async fn quit(self) {
        self.app.quit_over(&self.tray).await;
        self.browser.close().await;
    }
}
