//! The real desktop app on its own display, session bus and home.
//!
//! Each test starts an X server, window manager, compositor and session bus. It inspects the
//! windows through the X server, the tray through the bus as a panel does, and the pages through
//! WebDriver. Screenshots are saved under `tests/output/`.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

mod app;
mod asking;
mod driven;
mod notices;
mod pages;
mod poll;
mod screen;
mod serving;
mod session;
mod tray;

use app::{AT_REST, App, Look};
use driven::Driven;
use poll::until;
use proto::status::{Command, Phase};
use screen::{AT_ALL_DESKTOPS, Place, Rgb};
use session::DesktopSession;
use tray::Tray;

/// Bottom right, 12 pixels from the edges: 280 x 56 with a margin of 4. (GTK tends to make it 200
/// high.)
const CORNER: Place = Place {
    x: 980,
    y: 724,
    width: 288,
    height: 64,
};
const LIGHT: Rgb = Rgb(0xe8, 0xee, 0xf4);
const DARK: Rgb = Rgb(0x15, 0x18, 0x20);

#[tokio::test(flavor = "multi_thread")]
async fn the_overlay_floats_over_everything_and_takes_neither_click_nor_focus() {
    let session = DesktopSession::new().await;
    let below = session.screen.wallpaper(LIGHT, DARK);
    let app = App::start(&session, Look::Light).await;
    let overlay = session.screen.window("Hearth overlay").await;

    for state in ["_NET_WM_STATE_ABOVE", "_NET_WM_STATE_SKIP_TASKBAR"] {
        overlay.has_state(state).await;
    }
    assert_eq!(overlay.desktop(), Some(AT_ALL_DESKTOPS));
    overlay.lies_at(CORNER).await;
    overlay.lets_clicks_through().await;
    assert_ne!(session.screen.focused(), overlay.id, "it has the focus");

    session.screen.until_drawn(CORNER).await;
    let (x, y) = CORNER.centre();
    session.screen.click(x, y);
    assert_eq!(below.clicked().await, (x, y), "the pill took the click");

    session.screen.shoot("overlay-light.png").await;
    app.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_and_shown_again_the_overlay_is_as_before() {
    let session = DesktopSession::new().await;
    let watcher = tray::Watcher::new(&session).await;
    let app = App::start(&session, Look::Dark).await;
    session.screen.wallpaper(DARK, LIGHT);
    session
        .screen
        .window("Hearth overlay")
        .await
        .lies_at(CORNER)
        .await;
    let tray = Tray::of(&watcher).await;

    tray.click("Show overlay").await;
    session.screen.no_window("Hearth overlay").await;
    tray.until_mark("Show overlay", false).await;
    // No page is visible, so no web process is running.
    app.until_pages(0).await;

    tray.click("Show overlay").await;
    let after = session.screen.window("Hearth overlay").await;
    for state in ["_NET_WM_STATE_ABOVE", "_NET_WM_STATE_SKIP_TASKBAR"] {
        after.has_state(state).await;
    }
    assert_eq!(after.desktop(), Some(AT_ALL_DESKTOPS));
    after.lies_at(CORNER).await;
    after.lets_clicks_through().await;
    tray.until_mark("Show overlay", true).await;

    session.screen.until_drawn(CORNER).await;
    session.screen.shoot("overlay-dark.png").await;
    app.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_in_the_tray_is_what_overlay_and_hub_say_and_resume_takes_it_back() {
    let desk = Driven::start().await;

    desk.hub.until(|status| status.monitoring).await;
    desk.browser.overlay().await;
    desk.browser.until_text("state", AT_REST).await;

    desk.tray.click("Pause").await;
    let paused = desk.hub.until(|status| !status.monitoring).await;
    assert_eq!(paused.status, Phase::Paused);
    desk.browser.until_text("state", "Paused").await;
    desk.tray.until_item("Resume").await;

    desk.tray.click("Resume").await;
    desk.hub.until(|status| status.monitoring).await;
    desk.browser.until_text("state", AT_REST).await;
    desk.tray.until_item("Pause").await;
    desk.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tray_offers_what_the_app_can_do_and_has_a_picture() {
    let session = DesktopSession::new().await;
    let watcher = tray::Watcher::new(&session).await;
    let app = App::start(&session, Look::Light).await;
    let tray = Tray::of(&watcher).await;

    let labels = tray.labels().await;
    let offered = [
        "Pause",
        "Show overlay",
        "Start at login",
        "Open Hearth",
        "Quit",
    ];
    let places: Vec<_> = offered
        .iter()
        .map(|wanted| labels.iter().position(|label| label == wanted))
        .collect();
    assert!(places.iter().all(Option::is_some), "{labels:?}");
    assert!(places.is_sorted(), "{labels:?}");
    assert_ne!(
        labels.first().map(String::as_str),
        Some("Pause"),
        "the first line is the status"
    );
    let picture = tray.picture().await;
    assert!(picture.starts_with(b"\x89PNG"), "the icon is no picture");
    app.quit_over(&tray).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_real_panel_the_icon_is_seen_and_its_menu_opens() {
    let session = DesktopSession::new().await;
    let _panel = session.panel();
    let app = App::start(&session, Look::Light).await;
    let icon = Place {
        x: 1250,
        y: 0,
        width: 30,
        height: 30,
    };
    session.screen.until_drawn(icon).await;

    let (x, y) = icon.centre();
    session.screen.click(x, y);
    let menu = Place {
        x: 1000,
        y: 40,
        width: 280,
        height: 160,
    };
    session.screen.until_drawn(menu).await;
    session.screen.shoot("tray-menu.png").await;
    app.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_at_login_writes_the_desktop_entry_and_takes_it_away() {
    let session = DesktopSession::new().await;
    let watcher = tray::Watcher::new(&session).await;
    let app = App::start(&session, Look::Light).await;
    let tray = Tray::of(&watcher).await;
    let entry = session
        .home
        .path()
        .join("config/autostart/hearth-desktop.desktop");
    assert!(!entry.exists(), "nobody asked for it");

    tray.click("Start at login").await;
    tray.until_mark("Start at login", true).await;
    // A click toggles the check mark at once; the file follows.
    let text = until("an entry", async || std::fs::read_to_string(&entry).ok()).await;
    let start = text
        .lines()
        .find_map(|line| line.strip_prefix("Exec="))
        .unwrap();
    assert!(
        start.contains("hearth-desktop --engine ollama:http://127.0.0.1:1"),
        "{start}"
    );

    tray.click("Start at login").await;
    tray.until_mark("Start at login", false).await;
    until("no entry", async || (!entry.exists()).then_some(())).await;
    app.quit_over(&tray).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_at_login_that_is_refused_in_the_tray_is_explained_in_the_window() {
    let desk = Driven::with_a_key_in_the_environment().await;

    desk.tray.click("Start at login").await;
    let window = desk.session.screen.window("Hearth").await;
    desk.browser.main_window().await;
    desk.browser
        .until_contains("refused", "HEARTH_ENGINE_KEY")
        .await;
    desk.tray.until_mark("Start at login", false).await;
    desk.session.screen.until_drawn(window.place()).await;
    desk.session.screen.shoot("window-refused.png").await;
    desk.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_opens_from_the_tray_and_closing_it_leaves_the_app_running() {
    let desk = Driven::start().await;

    desk.session.screen.no_window("Hearth").await;

    desk.tray.click("Open Hearth").await;
    let window = desk.session.screen.window("Hearth").await;
    desk.browser.main_window().await;
    desk.browser.until_text("pause", "Pause").await;
    desk.session.screen.until_drawn(window.place()).await;
    desk.session.screen.shoot("window-light.png").await;

    desk.browser.click("pause").await;
    desk.hub.until(|status| !status.monitoring).await;
    desk.browser.until_text("pause", "Resume").await;
    desk.browser.click("pause").await;
    desk.hub.until(|status| status.monitoring).await;

    window.close();
    desk.session.screen.no_window("Hearth").await;
    desk.tray.click("Open Hearth").await;
    desk.session.screen.window("Hearth").await;
    desk.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_are_opened_in_a_new_window_and_in_one_that_is_open() {
    let desk = Driven::start().await;

    desk.hub.send(Command::OpenSettings).await;
    let window = desk.session.screen.window("Hearth").await;
    desk.browser.main_window().await;
    desk.browser.until_at("settings").await;
    window.close();
    desk.session.screen.no_window("Hearth").await;

    desk.tray.click("Open Hearth").await;
    let window = desk.session.screen.window("Hearth").await;
    window.resize(640, 360);
    desk.browser.main_window().await;
    desk.browser.until_text("pause", "Pause").await;
    desk.browser.until_below("settings").await;
    desk.hub.send(Command::OpenSettings).await;
    desk.browser.until_at("settings").await;
    desk.session.screen.until_drawn(window.place()).await;
    desk.session.screen.shoot("window-settings.png").await;
    desk.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_opens_the_first_ones_window_and_ends_well() {
    let session = DesktopSession::new().await;
    let app = App::start(&session, Look::Dark).await;
    let mut second = App::spawn(&session, Look::Dark);
    assert!(second.wait().await.success(), "{}", second.log());
    session.screen.wallpaper(DARK, LIGHT);
    let window = session.screen.window("Hearth").await;
    session.screen.until_drawn(window.place()).await;
    session.screen.until_drawn(CORNER).await;
    session.screen.shoot("window-dark.png").await;
    app.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quit_ends_every_process_and_takes_the_hub_down() {
    let session = DesktopSession::new().await;
    let watcher = tray::Watcher::new(&session).await;
    let app = App::start(&session, Look::Light).await;
    let tray = Tray::of(&watcher).await;
    let hub = app.hub();
    hub.until(|_| true).await;
    session.screen.window("Hearth overlay").await;
    assert!(
        app.processes().len() > 1,
        "an overlay without a web process"
    );

    tray.click("Quit").await;
    hub.until_lost().await;
    app.ended().await;
}
