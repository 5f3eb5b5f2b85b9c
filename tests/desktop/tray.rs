//! The tray, as a panel sees it over the session bus.

use std::collections::HashMap;

use serde::Serialize;
use tokio::{sync::watch, time::timeout};
use zbus::{
    Connection, interface,
    message::{Header, Message},
    zvariant::{DynamicType, OwnedValue, Value},
};

use crate::{poll::until, session::DesktopSession};

/// The watcher that icons register with, usually a part of the panel.
pub(crate) struct Watcher {
    bus: Connection,
    items: watch::Receiver<Vec<String>>,
}

struct Registry {
    items: watch::Sender<Vec<String>>,
}

#[interface(name = "org.kde.StatusNotifierWatcher")]
impl Registry {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the bus hands its header over by value"
    )]
    fn register_status_notifier_item(&self, service: &str, #[zbus(header)] header: Header<'_>) {
        let sender = header.sender().map(ToString::to_string).unwrap_or_default();
        let item = if service.starts_with('/') {
            format!("{sender}{service}")
        } else {
            format!("{service}/StatusNotifierItem")
        };
        self.items.send_modify(|items| items.push(item));
    }

    fn register_status_notifier_host(&self, _service: &str) {}

    #[zbus(property)]
    fn registered_status_notifier_items(&self) -> Vec<String> {
        self.items.borrow().clone()
    }

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }

    #[zbus(property)]
    fn protocol_version(&self) -> i32 {
        0
    }
}

impl Watcher {
    pub(crate) async fn new(session: &DesktopSession) -> Self {
        let (sender, items) = watch::channel(Vec::new());
        let bus = zbus::connection::Builder::address(session.bus())
            .unwrap()
            .serve_at("/StatusNotifierWatcher", Registry { items: sender })
            .unwrap()
            .name("org.kde.StatusNotifierWatcher")
            .unwrap()
            .build()
            .await
            .unwrap();
        Self { bus, items }
    }
}

/// Hearth's icon and its menu.
pub(crate) struct Tray {
    bus: Connection,
    owner: String,
    path: String,
}

struct Item {
    id: i32,
    label: String,
    mark: Option<i32>,
}

type Layout = (i32, HashMap<String, OwnedValue>, Vec<OwnedValue>);

impl Tray {
    /// Waits for the icon.
    pub(crate) async fn of(watcher: &Watcher) -> Self {
        let mut items = watcher.items.clone();
        let registered = items.wait_for(|items| !items.is_empty());
        let registered = timeout(hearth_tests::process::PATIENCE, registered).await;
        let item = registered
            .expect("a tray in time")
            .expect("a watcher")
            .first()
            .unwrap()
            .clone();
        let (owner, path) = item.split_at(item.find('/').unwrap());
        let tray = Self {
            bus: watcher.bus.clone(),
            owner: owner.to_owned(),
            path: path.to_owned(),
        };
        tray.until_item("Quit").await;
        tray
    }

    /// The labels of the menu, from top to bottom, without separators.
    pub(crate) async fn labels(&self) -> Vec<String> {
        let items = self.items().await;
        items
            .into_iter()
            .map(|item| item.label)
            .filter(|label| !label.is_empty())
            .collect()
    }

    pub(crate) async fn until_item(&self, label: &str) {
        until(&format!("{label:?} in the tray"), async || {
            self.labels()
                .await
                .iter()
                .any(|found| found == label)
                .then_some(())
        })
        .await;
    }

    /// Waits until the menu has exactly these labels.
    pub(crate) async fn until_labels(&self, labels: &[&str]) {
        until(&format!("{labels:?} in the tray"), async || {
            (self.labels().await == labels).then_some(())
        })
        .await;
    }

    pub(crate) async fn until_mark(&self, label: &str, on: bool) {
        until(&format!("{label:?} marked {on}"), async || {
            let items = self.items().await;
            let item = items.into_iter().find(|item| item.label == label)?;
            (item.mark == Some(i32::from(on))).then_some(())
        })
        .await;
    }

    /// The id of the item with this label.
    pub(crate) async fn id(&self, label: &str) -> i32 {
        let items = self.items().await;
        let item = items.iter().find(|item| item.label == label);
        item.unwrap_or_else(|| panic!("no {label:?} in the tray"))
            .id
    }

    pub(crate) async fn click(&self, label: &str) {
        let id = self.id(label).await;
        self.menu("Event", &(id, "clicked", Value::from(""), 0_u32))
            .await;
    }

    /// The bytes of the icon's file.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        let property = ("org.kde.StatusNotifierItem", "IconName");
        let call = self.bus.call_method(
            Some(self.owner.as_str()),
            self.path.as_str(),
            Some("org.freedesktop.DBus.Properties"),
            "Get",
            &property,
        );
        let reply = call.await.unwrap();
        let value: OwnedValue = reply.body().deserialize().unwrap();
        std::fs::read(String::try_from(value).unwrap()).unwrap()
    }

    async fn items(&self) -> Vec<Item> {
        let reply = self
            .menu("GetLayout", &(0_i32, -1_i32, Vec::<String>::new()))
            .await;
        let (_, (_, _, children)): (u32, Layout) = reply.body().deserialize().unwrap();
        let read = |child: OwnedValue| {
            let (id, properties, _): Layout = child.try_into().unwrap();
            let label = properties
                .get("label")
                .and_then(|label| label.clone().try_into().ok());
            let mark = properties
                .get("toggle-state")
                .and_then(|mark| mark.clone().try_into().ok());
            Item {
                id,
                label: label.unwrap_or_default(),
                mark,
            }
        };
        children.into_iter().map(read).collect()
    }

    async fn menu<B: Serialize + DynamicType>(&self, method: &str, body: &B) -> Message {
        let path = format!("{}/Menu", self.path);
        let interface = Some("com.canonical.dbusmenu");
        self.bus
            .call_method(Some(self.owner.as_str()), path, interface, method, body)
            .await
            .unwrap()
    }
}
