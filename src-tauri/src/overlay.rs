//! The overlay: a small pill above all windows, which takes neither clicks nor the focus.

use tauri::{
    AppHandle, LogicalSize, Manager as _, PhysicalPosition, PhysicalRect, WebviewUrl,
    WebviewWindow, WebviewWindowBuilder,
};

use crate::pages;

/// The window's label.
pub(crate) const LABEL: &str = "overlay";
/// The pill of 280 x 56 with a margin of 4; must match `style.css` and `Overlay.svelte`.
const SIZE: LogicalSize<f64> = LogicalSize::new(288.0, 64.0);
/// Distance between the pill and the corner of the screen.
const MARGIN: f64 = 12.0;

/// Shows the overlay; creates its window if needed.
pub(crate) fn show(app: &AppHandle) -> tauri::Result<()> {
    let window = match app.get_webview_window(LABEL) {
        Some(window) => window,
        None => build(app)?,
    };
    window.show()?;
    settle(&window)
}

/// Destroys the overlay's window, and with it the web process.
pub(crate) fn hide(app: &AppHandle) -> tauri::Result<()> {
    app.get_webview_window(LABEL)
        .map_or(Ok(()), |window| window.destroy())
}

fn build(app: &AppHandle) -> tauri::Result<WebviewWindow> {
    let (width, height) = (SIZE.width, SIZE.height);
    let mut builder = WebviewWindowBuilder::new(app, LABEL, WebviewUrl::App("overlay.html".into()));
    if let Some(monitor) = app.primary_monitor()? {
        let scale = monitor.scale_factor();
        let at = corner(monitor.work_area(), scale).to_logical::<f64>(scale);
        builder = builder.position(at.x, at.y);
    }
    builder
        .title("Hearth overlay")
        .inner_size(width, height)
        .min_inner_size(width, height)
        .max_inner_size(width, height)
        // GTK makes a window that is not resizable at least 200 pixels high.
        .resizable(true)
        .transparent(true)
        .decorations(false)
        .shadow(false)
        .always_on_top(true)
        .visible_on_all_workspaces(true)
        .skip_taskbar(true)
        .focused(false)
        .focusable(false)
        .on_navigation(pages::is_ours)
        .on_new_window(pages::no_new_window)
        .build()
}

/// Applies the window's properties. X11 window managers forget them when a window is unmapped, and
/// ignore some before it is mapped, so they are set after each showing.
fn settle(window: &WebviewWindow) -> tauri::Result<()> {
    window.set_always_on_top(false)?;
    window.set_always_on_top(true)?;
    window.set_visible_on_all_workspaces(false)?;
    window.set_visible_on_all_workspaces(true)?;
    window.set_ignore_cursor_events(true)?;
    if let Some(monitor) = window.primary_monitor()?.or(window.current_monitor()?) {
        window.set_position(corner(monitor.work_area(), monitor.scale_factor()))?;
    }
    Ok(())
}

/// The position of the window's upper left corner, so that the pill is at the bottom right.
fn corner(area: &PhysicalRect<i32, u32>, scale: f64) -> PhysicalPosition<i32> {
    let size = SIZE.to_physical::<i32>(scale);
    #[expect(clippy::cast_possible_truncation, reason = "a margin of a few pixels")]
    let margin = (MARGIN * scale).round() as i32;
    let end = |start: i32, length: u32, own: i32| {
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        start
            .saturating_add(length)
            .saturating_sub(own + margin)
            .max(start)
    };
    PhysicalPosition::new(
        end(area.position.x, area.size.width, size.width),
        end(area.position.y, area.size.height, size.height),
    )
}

#[cfg(test)]
mod tests {
    use tauri::PhysicalSize;

    use super::*;

    fn area(x: i32, y: i32, width: u32, height: u32) -> PhysicalRect<i32, u32> {
        PhysicalRect {
            position: PhysicalPosition::new(x, y),
            size: PhysicalSize::new(width, height),
        }
    }

    #[test]
    fn the_pill_sits_at_the_bottom_right_of_what_panels_leave() {
        let at = corner(&area(0, 24, 1280, 776), 1.0);
        assert_eq!(
            at,
            PhysicalPosition::new(1280 - 288 - 12, 24 + 776 - 64 - 12)
        );
    }

    #[test]
    fn a_dense_screen_to_the_left_is_reckoned_in_its_own_pixels() {
        let at = corner(&area(-2560, 0, 2560, 1440), 2.0);
        assert_eq!(at, PhysicalPosition::new(-(576 + 24), 1440 - 128 - 24));
    }

    #[test]
    fn on_a_screen_too_small_the_pill_begins_where_the_screen_does() {
        assert_eq!(
            corner(&area(5, 7, 100, 40), 1.0),
            PhysicalPosition::new(5, 7)
        );
    }
}
