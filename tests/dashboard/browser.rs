//! A headless Chromium, driven as a person uses it.

use std::{net::TcpListener, path::PathBuf};

use fantoccini::{
    Client, ClientBuilder, Locator, elements::Element, key::Key, wd::WebDriverCompatibleCommand,
};
use hearth_tests::process::{Home, Process};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use url::{ParseError, Url};

use crate::poll::until;

const DRIVER: &str = "chromedriver";

/// The preferred colour scheme.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Look {
    Light,
    Dark,
}

pub(crate) struct Browser {
    client: Client,
    _driver: Process,
    _home: Home,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let home = Home::new();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut driver = home.command(DRIVER);
        driver.arg(format!("--port={port}"));
        let driver = Process::start(DRIVER, driver);
        until("the driver's port", async || {
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        let profile = home.path().join("profile");
        let args = [
            "--headless=new".to_owned(),
            // The sandbox does not work for root in a container; the pages are our own.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--no-proxy-server".to_owned(),
            format!("--user-data-dir={}", profile.display()),
        ];
        let capabilities = [
            ("goog:chromeOptions".to_owned(), json!({ "args": args })),
            (
                "goog:loggingPrefs".to_owned(),
                json!({ "browser": "ALL", "performance": "ALL" }),
            ),
        ];
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.into_iter().collect())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Self {
            client,
            _driver: driver,
            _home: home,
        }
    }

    pub(crate) async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// Sets the colour scheme and the window's width.
    pub(crate) async fn look(&self, look: Look, width: u32) {
        let scheme = match look {
            Look::Light => "light",
            Look::Dark => "dark",
        };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.cdp(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
        let size =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.cdp("Emulation.setDeviceMetricsOverride", size).await;
        let hidden = json!({ "hidden": true });
        self.cdp("Emulation.setScrollbarsHidden", hidden).await;
    }

    /// Saves a screenshot of the whole page.
    pub(crate) async fn shoot(&self, name: &str) {
        let whole = json!({ "captureBeyondViewport": true, "format": "png" });
        let shot = self.cdp("Page.captureScreenshot", whole).await;
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("output");
        std::fs::create_dir_all(&folder).unwrap();
        let png = base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            shot["data"].as_str().unwrap(),
        );
        std::fs::write(folder.join(name), png.unwrap()).unwrap();
    }

    async fn cdp(&self, cmd: &str, params: Value) -> Value {
        let command = Cdp {
            route: "goog/cdp/execute",
            body: json!({ "cmd": cmd, "params": params }),
        };
        self.client.issue_cmd(command).await.unwrap()
    }

    /// The page's console errors since the last call.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let command = Cdp {
            route: "se/log",
            body: json!({ "type": "browser" }),
        };
        let told = self.client.issue_cmd(command).await.unwrap();
        let entries = told.as_array().unwrap().iter();
        let texts = entries.map(|entry| entry["message"].as_str().unwrap().to_owned());
        texts.collect()
    }

    /// The requests since the last call: method and URL.
    pub(crate) async fn requests(&self) -> Vec<(String, String)> {
        let command = Cdp {
            route: "se/log",
            body: json!({ "type": "performance" }),
        };
        let told = self.client.issue_cmd(command).await.unwrap();
        let entries = told.as_array().unwrap().iter();
        let events = entries.map(|entry| -> Value {
            serde_json::from_str(entry["message"].as_str().unwrap()).unwrap()
        });
        let sent = events.filter(|event| event["message"]["method"] == "Network.requestWillBeSent");
        let request = |event: Value| {
            let request = &event["message"]["params"]["request"];
            let word = |name: &str| request[name].as_str().unwrap().to_owned();
            (word("method"), word("url"))
        };
        sent.map(request).collect()
    }

    /// The result of a script in the page.
    pub(crate) async fn looked_up(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap()
    }

    /// Sets the colour behind a transparent page.
    pub(crate) async fn lay_under(&self, [r, g, b]: [u8; 3]) {
        let color = json!({ "color": { "r": r, "g": g, "b": b, "a": 1 } });
        self.cdp("Emulation.setDefaultBackgroundColorOverride", color)
            .await;
    }

    pub(crate) async fn find(&self, id: &str) -> Option<Element> {
        self.client.find(Locator::Css(&place(id))).await.ok()
    }

    /// The text of the element with this test id.
    pub(crate) async fn text(&self, id: &str) -> Option<String> {
        let said = self.find(id).await?.prop("textContent").await.ok()??;
        Some(said.trim().to_owned())
    }

    pub(crate) async fn until_text(&self, id: &str, text: &str) {
        until(&format!("{id} says {text:?}"), async || {
            (self.text(id).await? == text).then_some(())
        })
        .await;
    }

    pub(crate) async fn until_contains(&self, id: &str, part: &str) {
        until(&format!("{id} says something with {part:?}"), async || {
            self.text(id).await?.contains(part).then_some(())
        })
        .await;
    }

    /// Waits until the element's accessible label contains this.
    pub(crate) async fn until_label(&self, id: &str, part: &str) {
        until(&format!("{id} is labelled with {part:?}"), async || {
            let label = self.find(id).await?.attr("aria-label").await.ok()??;
            label.contains(part).then_some(())
        })
        .await;
    }

    pub(crate) async fn until_gone(&self, id: &str) {
        until(&format!("there is no {id}"), async || {
            self.find(id).await.is_none().then_some(())
        })
        .await;
    }

    /// Types into the focused element.
    pub(crate) async fn keys(&self, text: &str) {
        let focused = self.client.active_element().await.unwrap();
        focused.send_keys(text).await.unwrap();
    }

    pub(crate) async fn press(&self, key: Key) {
        self.keys(&char::from(key).to_string()).await;
    }

    /// Presses Tab until the focused element has this test id and label.
    pub(crate) async fn tab_to(&self, id: &str, label: &str) {
        for _ in 0..60 {
            self.press(Key::Tab).await;
            let script = "const on = document.activeElement;
                return [on.dataset.testid ?? '', on.getAttribute('aria-label') ?? '',
                        on.matches(':focus-visible')];";
            let on = self.client.execute(script, vec![]).await.unwrap();
            if on[0] == id && on[1].as_str().unwrap().contains(label) {
                assert_eq!(on[2], true, "the focus on {id} is seen");
                return;
            }
        }
        panic!("the Tab key never leads to {id} {label:?}");
    }

    /// Whether any element is wider than the window, or than what it scrolls in.
    pub(crate) async fn overflows(&self) -> bool {
        let script = "const scrolled = [...document.querySelectorAll('.rows, dialog')];
            return document.documentElement.scrollWidth > innerWidth
                || scrolled.some((one) => one.scrollWidth > one.clientWidth);";
        self.client.execute(script, vec![]).await.unwrap() == true
    }

    /// In each look and width: the page is no wider than its window. Saves screenshots.
    pub(crate) async fn shoot_all(&self, name: &str) {
        for (look, says) in [(Look::Light, "light"), (Look::Dark, "dark")] {
            for width in [1280, 1000, 740, 420, 340] {
                self.look(look, width).await;
                let fits = format!("the page fits into {width} px");
                until(&fits, async || (!self.overflows().await).then_some(())).await;
                self.shoot(&format!("{name}-{says}-{width}.png")).await;
            }
        }
        self.look(Look::Light, 1280).await;
    }

    /// The page's HTML.
    pub(crate) async fn page(&self) -> String {
        self.client.source().await.unwrap()
    }

    pub(crate) async fn address(&self) -> Url {
        self.client.current_url().await.unwrap()
    }

    pub(crate) async fn value(&self, id: &str) -> String {
        let field = self.find(id).await.unwrap();
        field.prop("value").await.unwrap().unwrap()
    }

    pub(crate) async fn close(self) {
        self.client.close().await.unwrap();
    }
}

fn place(id: &str) -> String {
    format!("[data-testid={id}]")
}

/// A command of the Chrome DevTools Protocol.
#[derive(Debug)]
struct Cdp {
    route: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Cdp {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        let session = session.unwrap_or_default();
        base.join(&format!("session/{session}/{}", self.route))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}
