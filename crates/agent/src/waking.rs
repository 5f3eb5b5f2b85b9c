//! Wake-up signals from the system bus. After a sleep or a network change, connections that look
//! open may be dead. Linux only; on other systems a connection that slept is detected by its clock.
//!
//! `PrepareForSleep` is from logind (`org.freedesktop.login1`), `StateChanged` from NetworkManager.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use zbus::{
    Connection, Message, Proxy, connection::Builder, proxy::CacheProperties, zvariant::Type,
};

const LOGIND: [&str; 4] = [
    "org.freedesktop.login1",
    "/org/freedesktop/login1",
    "org.freedesktop.login1.Manager",
    "PrepareForSleep",
];
const NETWORKS: [&str; 4] = [
    "org.freedesktop.NetworkManager",
    "/org/freedesktop/NetworkManager",
    "org.freedesktop.NetworkManager",
    "StateChanged",
];
/// NetworkManager's state from which other networks are reachable.
const CONNECTED: u32 = 60;

/// Timeout of each call on the bus.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls `woken` whenever the machine wakes up or its network returns. Runs until the bus at this
/// address (`None`: the system bus) closes; returns at once if there is none.
pub(crate) async fn follow(bus: Option<&str>, woken: impl Fn()) {
    if let Err(error) = listen(bus, woken).await {
        tracing::debug!(%error, "no wake-up signals from the system bus");
    }
}

async fn listen(bus: Option<&str>, woken: impl Fn()) -> zbus::Result<()> {
    let builder = match bus {
        Some(address) => Builder::address(address)?,
        None => Builder::system()?,
    };
    let connection = builder.method_timeout(PATIENCE).build().await?;
    let mut waking = Waking::default();
    let sleeps = said::<bool>(&connection, LOGIND).await.map(Said::Sleeps);
    let networks = said::<u32>(&connection, NETWORKS).await.map(Said::Network);
    let mut all = stream::select(sleeps, networks);
    while let Some(said) = all.next().await {
        if waking.is_reason(said) {
            tracing::info!("the machine woke up or its network came back");
            woken();
        }
    }
    Ok(())
}

/// The values of one signal; none if its service is absent. Only signals of the service's owner
/// count, because any program may send the same.
async fn said<T>(
    connection: &Connection,
    [name, path, interface, signal]: [&'static str; 4],
) -> impl Stream<Item = T> + use<T>
where
    T: for<'a> serde::Deserialize<'a> + Type,
{
    let signals = async {
        let proxy: Proxy<'static> = zbus::proxy::Builder::new(connection)
            .destination(name)?
            .path(path)?
            .interface(interface)?
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        proxy.receive_signal(signal).await
    };
    let signals = signals.await.map_err(|error: zbus::Error| {
        tracing::debug!(%error, name, "nobody says it");
    });
    let read = |message: Message| async move { message.body().deserialize().ok() };
    Box::pin(stream::iter(signals).flatten().filter_map(read))
}

#[derive(Clone, Copy)]
enum Said {
    /// Whether the machine is about to sleep, or has woken up.
    Sleeps(bool),
    /// The network state.
    Network(u32),
}

#[derive(Default)]
struct Waking {
    is_connected: Option<bool>,
}

impl Waking {
    fn is_reason(&mut self, said: Said) -> bool {
        match said {
            Said::Sleeps(sleeps) => !sleeps,
            Said::Network(state) => {
                let is_connected = state >= CONNECTED;
                self.is_connected.replace(is_connected) != Some(true) && is_connected
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_comes_back_is_a_reason_and_one_that_only_grows_is_none() {
        let mut waking = Waking::default();
        let states = [70, 60, 70, 20, 40, 60, 70];
        let reasons = states.map(|state| waking.is_reason(Said::Network(state)));
        assert_eq!(reasons, [true, false, false, false, false, true, false]);
        let sleeps = [true, false].map(|sleeps| waking.is_reason(Said::Sleeps(sleeps)));
        assert_eq!(sleeps, [false, true]);
    }
}
