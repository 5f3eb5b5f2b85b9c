//! A notification server on the session bus.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::mpsc;
use zbus::{Connection, interface, zvariant::OwnedValue};

use crate::session::DesktopSession;

const PATH: &str = "/org/freedesktop/Notifications";
const NAME: &str = "org.freedesktop.Notifications";

/// A call of the app.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Notify {
        id: u32,
        title: String,
        body: String,
        /// Keys and labels, alternating.
        actions: Vec<String>,
    },
    Close(u32),
    /// A call that the server refused.
    Refused {
        title: String,
    },
}

struct Server {
    refuses: Arc<AtomicBool>,
    asked: mpsc::Sender<Asked>,
    last: u32,
}

#[interface(name = "org.freedesktop.Notifications")]
impl Server {
    #[expect(clippy::too_many_arguments, reason = "the specification has eight")]
    #[expect(clippy::needless_pass_by_value, reason = "the bus hands them over")]
    fn notify(
        &mut self,
        _app: &str,
        _replaces: u32,
        _icon: &str,
        title: String,
        body: String,
        actions: Vec<String>,
        hints: HashMap<String, OwnedValue>,
        expire: i32,
    ) -> zbus::fdo::Result<u32> {
        if self.refuses.swap(false, Ordering::SeqCst) {
            let _ = self.asked.try_send(Asked::Refused { title });
            let why = "too many similar notices in quick succession";
            return Err(zbus::fdo::Error::LimitsExceeded(why.to_owned()));
        }
        assert_eq!(expire, 0, "it stays until somebody decides");
        assert!(hints.contains_key("resident"));
        self.last += 1;
        let id = self.last;
        let _ = self.asked.try_send(Asked::Notify {
            id,
            title,
            body,
            actions,
        });
        Ok(id)
    }

    fn close_notification(&self, id: u32) {
        let _ = self.asked.try_send(Asked::Close(id));
    }
}

/// The notification server.
pub(crate) struct Notices {
    refuses: Arc<AtomicBool>,
    bus: Connection,
    asked: mpsc::Receiver<Asked>,
}

impl Notices {
    pub(crate) async fn new(session: &DesktopSession) -> Self {
        let (sender, asked) = mpsc::channel(16);
        let refuses = Arc::new(AtomicBool::default());
        let server = Server {
            refuses: refuses.clone(),
            asked: sender,
            last: 40,
        };
        let builder = zbus::connection::Builder::address(session.bus()).unwrap();
        let builder = builder.serve_at(PATH, server).unwrap();
        let bus = builder.name(NAME).unwrap().build().await.unwrap();
        Self {
            refuses,
            bus,
            asked,
        }
    }

    /// Refuses the next notification, as servers do when there are too many.
    pub(crate) fn refuse_one(&self) {
        self.refuses.store(true, Ordering::SeqCst);
    }

    /// The next call of the app.
    pub(crate) async fn asked(&mut self) -> Asked {
        let asked = tokio::time::timeout(hearth_tests::process::PATIENCE, self.asked.recv());
        asked.await.expect("a notice in time").unwrap()
    }

    /// Simulates a click on a notification.
    pub(crate) async fn click(&self, id: u32, action: &str) {
        click(&self.bus, id, action).await;
    }
}

/// Sends the signal of a click from this connection.
pub(crate) async fn click(bus: &Connection, id: u32, action: &str) {
    let said = (id, action);
    bus.emit_signal(None::<&str>, PATH, NAME, "ActionInvoked", &said)
        .await
        .unwrap();
}
