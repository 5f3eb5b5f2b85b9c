//! Limits on the number of connections: per address for those that have not yet shown a valid key,
//! and per key.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use proto::ErrorCode;
use telemetry::metrics::Connected;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    error::ApiError,
    peer::{Network, canonical, client_prefix},
};

/// Default maximum of connections per address.
const USUAL: usize = 64;

/// Counts of open connections, and their limits.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    waiting: Mutex<HashMap<IpAddr, usize>>,
    inside: Mutex<HashMap<String, usize>>,
    most: Option<usize>,
    /// 0 means no limit.
    most_of_key: usize,
    proxies: Vec<Network>,
}

/// Handle of one connection. The connection counts until the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionHandle(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    limits: Arc<ConnectionLimits>,
    /// Count for its address until it shows a valid key; `None` for connections that are not
    /// counted.
    anonymous: Option<AnonymousSlot>,
    /// Holder of the key that it last used.
    holder: Mutex<Option<String>>,
    permits: OnceLock<ConnectionPermits>,
}

/// Permits of the whole server that a connection holds, also after its upgrade to a WebSocket.
#[derive(Debug)]
pub(crate) struct ConnectionPermits {
    pub(crate) _place: OwnedSemaphorePermit,
    pub(crate) _counted: Connected,
}

#[derive(Debug)]
struct AnonymousSlot {
    limits: Arc<ConnectionLimits>,
    client_prefix: IpAddr,
    has_left: Mutex<bool>,
}

impl ConnectionLimits {
    pub(crate) fn new(most: Option<usize>, most_of_key: usize, proxies: &[Network]) -> Self {
        Self {
            waiting: Mutex::default(),
            inside: Mutex::default(),
            most,
            most_of_key,
            proxies: proxies.to_vec(),
        }
    }

    /// Registers a connection; `None` if its address has too many. Connections of trusted proxies
    /// are not counted, because many clients share them.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionHandle> {
        let address = canonical(address);
        let is_proxy = self.proxies.iter().any(|proxy| proxy.contains(address));
        let most = self.most.or((!address.is_loopback()).then_some(USUAL));
        let Some(most) = most.filter(|_| !is_proxy) else {
            return Some(self.connection(None));
        };
        let client_prefix = client_prefix(address);
        let mut waiting = self.waiting.lock();
        let here = waiting.entry(client_prefix).or_default();
        if *here >= most {
            return None;
        }
        *here += 1;
        drop(waiting);
        Some(self.connection(Some(AnonymousSlot {
            limits: self.clone(),
            client_prefix,
            has_left: Mutex::new(false),
        })))
    }

    fn connection(self: &Arc<Self>, anonymous: Option<AnonymousSlot>) -> ConnectionHandle {
        ConnectionHandle(Arc::new(Connection {
            limits: self.clone(),
            anonymous,
            holder: Mutex::default(),
            permits: OnceLock::new(),
        }))
    }

    /// Counts one more connection of this holder, if its limit allows.
    fn acquire(&self, holder: &str) -> bool {
        let mut inside = self.inside.lock();
        let count = inside.get(holder).copied().unwrap_or_default();
        if self.most_of_key > 0 && count >= self.most_of_key {
            return false;
        }
        inside.insert(holder.to_owned(), count + 1);
        true
    }

    fn release(&self, holder: &str) {
        let mut inside = self.inside.lock();
        if let Some(count) = inside.get_mut(holder) {
            *count -= 1;
            if *count == 0 {
                inside.remove(holder);
            }
        }
    }
}

impl ConnectionHandle {
    /// Attaches permits, which are held until the last clone is dropped.
    pub(crate) fn keep(&self, permits: ConnectionPermits) {
        // The only caller sets it once.
        let _ = self.0.permits.set(permits);
    }

    /// Returns the holder of the key that the connection last used.
    pub(crate) fn holder(&self) -> Option<String> {
        self.0.holder.lock().clone()
    }

    /// Counts the connection for the holder of a valid key. A connection of a proxy may show
    /// several keys in turn: it counts for the last.
    ///
    /// # Errors
    /// Too many connections are open with that key.
    pub(crate) fn count_for(&self, holder: &str) -> Result<(), ApiError> {
        let Connection {
            limits,
            anonymous,
            holder: held,
            permits: _,
        } = &*self.0;
        let mut held = held.lock();
        if held.as_deref() == Some(holder) {
            return Ok(());
        }
        if !limits.acquire(holder) {
            let most = limits.most_of_key;
            let message = format!(
                "{most} connections are already open with this key; close some, or reuse them"
            );
            return Err(ApiError::new(ErrorCode::TooManyConnections, message));
        }
        // Left only after it counts for the key, so that it always counts somewhere.
        if let Some(anonymous) = anonymous {
            anonymous.leave();
        }
        if let Some(before) = held.replace(holder.to_owned()) {
            limits.release(&before);
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(holder) = self.holder.lock().take() {
            self.limits.release(&holder);
        }
    }
}

impl AnonymousSlot {
    fn leave(&self) {
        let mut has_left = self.has_left.lock();
        if std::mem::replace(&mut *has_left, true) {
            return;
        }
        let mut waiting = self.limits.waiting.lock();
        if let Some(here) = waiting.get_mut(&self.client_prefix) {
            *here -= 1;
            if *here == 0 {
                waiting.remove(&self.client_prefix);
            }
        }
    }
}

impl Drop for AnonymousSlot {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_of_one_house_stand_at_the_entrance() {
        let limits = Arc::new(ConnectionLimits::new(
            None,
            2,
            &["10.0.0.1".parse().unwrap()],
        ));
        let enter = |address: &str| limits.enter(address.parse().unwrap());
        let mut all: Vec<_> = (0..USUAL).map(|_| enter("203.0.113.9").unwrap()).collect();
        assert!(enter("203.0.113.9").is_none());
        assert!(enter("::ffff:203.0.113.9").is_none(), "in any spelling");
        assert!(enter("203.0.113.8").is_some());
        for _ in 0..2 {
            assert_eq!(all[0].count_for("a"), Ok(()));
        }
        all.push(enter("203.0.113.9").unwrap());
        assert!(enter("203.0.113.9").is_none(), "one went in, one came");
        for open in ["127.0.0.1", "::1", "10.0.0.1"] {
            let many: Vec<_> = (0..1000).map(|_| enter(open).unwrap()).collect();
            drop(many);
        }
        drop(all);
        assert!(limits.waiting.lock().is_empty(), "nobody is remembered");
    }

    #[test]
    fn only_so_many_connections_are_open_with_one_key_and_each_counts_for_the_last_it_showed() {
        let limits = Arc::new(ConnectionLimits::new(None, 2, &[]));
        let enter = || limits.enter("127.0.0.1".parse().unwrap()).unwrap();
        let (one, two, three) = (enter(), enter(), enter());
        let copy = one.clone();
        assert!(
            one.count_for("a").is_ok() && two.count_for("a").is_ok() && one.count_for("a").is_ok()
        );
        let refused = three.count_for("a").unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooManyConnections);
        assert!(
            refused.message.contains("2 connections"),
            "{}",
            refused.message
        );
        assert!(three.count_for("b").is_ok(), "another key");
        drop(one);
        assert!(three.count_for("a").is_err(), "a copy of it is left");
        drop(copy);
        assert!(three.count_for("a").is_ok() && two.count_for("b").is_ok());
        assert_eq!(limits.inside.lock().len(), 2);
        drop((two, three));
        assert!(limits.inside.lock().is_empty(), "nobody is remembered");
        let limits = Arc::new(ConnectionLimits::new(None, 0, &[]));
        let many = (0..1000).map(|_| limits.enter("::1".parse().unwrap()).unwrap());
        let many: Vec<_> = many.collect();
        assert!(
            many.iter().all(|one| one.count_for("a").is_ok()),
            "0 is no limit"
        );
    }

    #[test]
    fn a_connection_that_its_key_has_no_room_for_still_counts_for_its_address() {
        let limits = Arc::new(ConnectionLimits::new(Some(2), 1, &[]));
        let enter = || limits.enter("203.0.113.9".parse().unwrap());
        let inside = enter().unwrap();
        assert!(inside.count_for("a").is_ok());
        let refused = [enter().unwrap(), enter().unwrap()];
        assert!(refused.iter().all(|one| one.count_for("a").is_err()));
        assert!(enter().is_none());
        drop(inside);
        assert!(refused[0].count_for("a").is_ok());
        assert!(enter().is_some());
    }

    #[test]
    fn a_number_that_was_chosen_counts_on_this_machine_too() {
        let limits = Arc::new(ConnectionLimits::new(Some(1), 0, &[]));
        let home = "127.0.0.1".parse().unwrap();
        let first = limits.enter(home).unwrap();
        assert!(limits.enter(home).is_none());
        drop(first);
        assert!(limits.enter(home).is_some());
    }
}
