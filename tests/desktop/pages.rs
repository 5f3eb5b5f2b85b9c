//! The pages, read and clicked through WebDriver.

use std::net::TcpListener;

use fantoccini::{Client, ClientBuilder, Locator};
use hearth_tests::{
    process::{Process, binary},
    test_bed::TestBed,
};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use tokio::{net::TcpStream, process::Command};

use crate::{
    app::{self, App, Look},
    poll::until,
    session::DesktopSession,
};

const DRIVER: &str = "WebKitWebDriver";

/// A WebDriver session that started the app.
pub(crate) struct Browser {
    client: Client,
    _driver: Process,
}

impl Browser {
    /// Starts the app without a relay.
    pub(crate) async fn start(session: &DesktopSession, look: Look) -> Self {
        Self::drive(
            session.command(DRIVER),
            look,
            app::ARGS.map(str::to_owned).to_vec(),
        )
        .await
    }

    /// Starts the app as the agent of a relay.
    pub(crate) async fn serving(session: &DesktopSession, bed: &TestBed, look: Look) -> Self {
        let mut driver = session.command(DRIVER);
        driver.env("HEARTH_KEY", &bed.worker);
        Self::drive(driver, look, bed.options()).await
    }

    /// Starts the app with a key that a start at login could not repeat.
    pub(crate) async fn with_a_key_in_the_environment(
        session: &DesktopSession,
        look: Look,
    ) -> Self {
        let mut driver = session.command(DRIVER);
        driver.env("HEARTH_ENGINE_KEY", "k");
        let mut args = app::ARGS;
        args[5] = "openai:http://127.0.0.1:1/v1";
        Self::drive(driver, look, args.map(str::to_owned).to_vec()).await
    }

    async fn drive(mut driver: Command, look: Look, args: Vec<String>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        driver.args([format!("--port={port}"), "--host=127.0.0.1".to_owned()]);
        // Without this capability the pages cannot be automated.
        driver
            .env("TAURI_WEBVIEW_AUTOMATION", "true")
            .env("GTK_THEME", look.theme());
        let driver = Process::start(DRIVER, driver);
        until("the driver's port", async || {
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;

        let options = json!({ "binary": binary("hearth-desktop"), "args": args });
        let capabilities = [("webkitgtk:browserOptions".to_owned(), options)];
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.into_iter().collect())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Self {
            client,
            _driver: driver,
        }
    }

    /// The app that the driver started.
    pub(crate) async fn app(&self, session: &DesktopSession) -> App {
        App::running(session).await
    }

    /// Switches to the overlay.
    pub(crate) async fn overlay(&self) {
        self.look_at("the overlay", |path| path == "/overlay.html")
            .await;
    }

    /// Switches to the main window.
    pub(crate) async fn main_window(&self) {
        self.look_at("the main window", |path| path != "/overlay.html")
            .await;
    }

    async fn look_at(&self, what: &str, is_it: impl Fn(&str) -> bool) {
        until(what, async || {
            for window in self.client.windows().await.ok()? {
                self.client.switch_to_window(window).await.ok()?;
                if is_it(self.client.current_url().await.ok()?.path()) {
                    return Some(());
                }
            }
            None
        })
        .await;
    }

    /// Waits until the element with this test id has this text. (Reads the content, because the
    /// driver treats text that cannot be selected as invisible.)
    pub(crate) async fn until_text(&self, id: &str, text: &str) {
        let place = format!("[data-testid={id}]");
        until(&format!("{id} says {text:?}"), async || {
            let element = self.client.find(Locator::Css(&place)).await.ok()?;
            (element.prop("textContent").await.ok()??.trim() == text).then_some(())
        })
        .await;
    }

    /// Waits until the element with this test id contains this text.
    pub(crate) async fn until_contains(&self, id: &str, part: &str) {
        let place = format!("[data-testid={id}]");
        until(&format!("{id} says something with {part:?}"), async || {
            let element = self.client.find(Locator::Css(&place)).await.ok()?;
            let said = element.prop("textContent").await.ok()??;
            said.contains(part).then_some(())
        })
        .await;
    }

    /// Waits until the section with this heading is in sight and has the focus.
    pub(crate) async fn until_at(&self, heading: &str) {
        self.until_holds(
            &format!("{heading} in sight with the focus"),
            &format!(
                "const at = document.querySelector('section[aria-labelledby={heading}]');
            const {{ top, bottom }} = at.getBoundingClientRect();
            return document.activeElement === at && top >= -1 && bottom <= innerHeight + 1;"
            ),
        )
        .await;
    }

    /// Waits until one must scroll to see the section with this heading, which does not have the
    /// focus.
    pub(crate) async fn until_below(&self, heading: &str) {
        self.until_holds(
            &format!("{heading} out of sight"),
            &format!(
                "const at = document.querySelector('section[aria-labelledby={heading}]');
            const {{ bottom }} = at.getBoundingClientRect();
            return document.activeElement !== at && bottom > innerHeight + 1;"
            ),
        )
        .await;
    }

    async fn until_holds(&self, what: &str, script: &str) {
        until(what, async || {
            let holds = self.client.execute(script, Vec::new()).await.ok()?;
            (holds == json!(true)).then_some(())
        })
        .await;
    }

    pub(crate) async fn click(&self, id: &str) {
        let element = self
            .client
            .find(Locator::Css(&format!("[data-testid={id}]")))
            .await
            .unwrap();
        element.click().await.unwrap();
    }

    /// Ends the session; the app may have ended already.
    pub(crate) async fn close(self) {
        let _ = self.client.close().await;
    }
}
