//! A machine that wakes up, as its system bus reports it.

use std::collections::HashMap;

use tests::process::{Home, Process};
use zbus::{Connection, connection::Builder};

use crate::{
    relay::{Relay, Stage},
    support::soon,
};

const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";

async fn on(bus: &str) -> Connection {
    let builder = Builder::address(bus).unwrap();
    soon(builder.build()).await.unwrap()
}

async fn says(connection: &Connection, sleeps: bool) {
    let said = connection.emit_signal(None::<&str>, PATH, MANAGER, "PrepareForSleep", &sleeps);
    soon(said).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_wakes_up_gets_a_new_link_at_once_and_nobody_else_can_say_that_it_did() {
    let home = Home::new();
    let mut daemon = home.command("dbus-daemon");
    daemon.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]);
    let mut daemon = Process::start("dbus-daemon", daemon);
    let bus = format!("unix:{}", daemon.says("unix:").await);
    let logind = on(&bus).await;
    soon(logind.request_name("org.freedesktop.login1"))
        .await
        .unwrap();

    let stage = Stage::set().await;
    let agent = stage.agent_on(Some(bus.clone())).await;
    let mut first = Relay::accept(&stage.listener).await;
    soon(is_listened_to(&logind)).await;
    // Signals of programs other than logind are ignored, and a machine that falls asleep keeps its
    // link.
    let other = on(&bus).await;
    says(&other, false).await;
    says(&logind, true).await;
    first.is_answered().await;
    says(&logind, false).await;
    let _second = Relay::accept(&stage.listener).await;
    agent.stop().await;
    assert!(daemon.terminate().await.success());
}

/// Waits until the agent subscribes to the signal.
async fn is_listened_to(connection: &Connection) {
    loop {
        let rules = connection.call_method(
            Some("org.freedesktop.DBus"),
            "/org/freedesktop/DBus",
            Some("org.freedesktop.DBus.Debug.Stats"),
            "GetAllMatchRules",
            &(),
        );
        let rules: HashMap<String, Vec<String>> =
            rules.await.unwrap().body().deserialize().unwrap();
        if rules
            .values()
            .flatten()
            .any(|rule| rule.contains("PrepareForSleep"))
        {
            return;
        }
    }
}
