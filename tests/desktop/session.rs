//! A desktop for one test: display, session bus, window manager, compositor.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use hearth_tests::process::Home;

use crate::{poll::until, screen::Screen};

/// A running desktop; its processes end with the test, the last started first.
pub(crate) struct DesktopSession {
    pub(crate) screen: Screen,
    _compositor: Guard,
    _manager: Guard,
    bus: (Guard, String),
    display: (Guard, String),
    pub(crate) home: Home,
}

impl DesktopSession {
    pub(crate) async fn new() -> Self {
        let home = Home::new();
        let runtime = home.path().join("run");
        std::fs::create_dir(&runtime).unwrap();
        private(&runtime);
        let own = |command: &mut Command| {
            command
                .env("HOME", home.path())
                .env("XDG_CONFIG_HOME", home.path().join("config"))
                .env("XDG_DATA_HOME", home.path().join("data"))
                .env("XDG_RUNTIME_DIR", &runtime)
                .env_remove("WAYLAND_DISPLAY");
        };

        let mut server = Command::new("Xvfb");
        server.args([
            "-displayfd",
            "1",
            "-screen",
            "0",
            "1280x800x24",
            "-nolisten",
            "tcp",
        ]);
        let mut server = Guard::start(server.stdout(Stdio::piped()));
        let display = format!(":{}", server.first_line());

        let mut daemon = Command::new("dbus-daemon");
        daemon.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]);
        own(daemon.env("DISPLAY", &display));
        let mut daemon = Guard::start(daemon.stdout(Stdio::piped()));
        let address = daemon.first_line();

        let session = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            own(command
                .args(args)
                .env("DISPLAY", &display)
                .env(BUS, &address));
            Guard::start(&command)
        };
        let manager = session("openbox", &["--sm-disable"]);
        let compositor = session("picom", &["--backend", "xrender", "--config", "/dev/null"]);
        let screen = Screen::open(&display);
        until("a window manager and a compositor", async || {
            screen.is_ready().then_some(())
        })
        .await;
        Self {
            screen,
            _compositor: compositor,
            _manager: manager,
            bus: (daemon, address),
            display: (server, display),
            home,
        }
    }

    /// A command that sees this desktop and nothing of the user's.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> tokio::process::Command {
        let mut command = self.home.command(program);
        command
            .env("DISPLAY", &self.display.1)
            .env(BUS, &self.bus.1)
            .env("XDG_RUNTIME_DIR", self.home.path().join("run"))
            .env("GDK_BACKEND", "x11")
            .env("NO_AT_BRIDGE", "1");
        command
    }

    /// Starts a panel along the upper edge, with only a tray at its right end.
    pub(crate) fn panel(&self) -> Guard {
        let folder = self
            .home
            .path()
            .join("config/xfce4/xfconf/xfce-perchannel-xml");
        std::fs::create_dir_all(&folder).unwrap();
        let settings = include_str!("xfce4-panel.xml");
        std::fs::write(folder.join("xfce4-panel.xml"), settings).unwrap();
        let mut command = self.command("xfce4-panel");
        Guard::start(command.arg("--disable-wm-check").as_std())
    }

    /// The address of the session bus.
    pub(crate) fn bus(&self) -> &str {
        &self.bus.1
    }
}

const BUS: &str = "DBUS_SESSION_BUS_ADDRESS";

#[cfg(unix)]
fn private(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// A process of the desktop. `timeout` ends it if the test itself is killed.
pub(crate) struct Guard(Child);

impl Guard {
    pub(crate) fn start(command: &Command) -> Self {
        let program = command.get_program().to_owned();
        let mut bounded = Command::new("timeout");
        bounded
            .args(["--kill-after=5", "600"])
            .arg(&program)
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => bounded.env(name, value),
                None => bounded.env_remove(name),
            };
        }
        let child = bounded
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        Self(child)
    }

    /// The first line of its output.
    fn first_line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(!line.is_empty(), "a program of the desk ended at once");
        line.trim().to_owned()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let id = self.0.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let _ = self.0.wait();
    }
}
