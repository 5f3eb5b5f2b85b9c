//! Limits on the number of connections: per address for those that have not yet shown a valid key,
//! and per key. Many clients share the connections of a proxy: there, arriving bodies of requests
//! without a valid key count in their place.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
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
pub(crate) struct ConnectionHandle {
    connection: Arc<Connection>,
    /// The request that the handle is attached to.
    request: Option<Arc<ProxiedRequest>>,
}

/// A request of a proxy.
#[derive(Debug)]
struct ProxiedRequest {
    client: IpAddr,
    has_valid_key: AtomicBool,
}

#[derive(Debug)]
struct Connection {
    limits: Arc<ConnectionLimits>,
    /// Count for its address until it shows a valid key; `None` for connections that are not
    /// counted.
    anonymous: Option<AnonymousSlot>,
    /// Whether it is a connection of a trusted proxy.
    is_of_proxy: bool,
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

/// A count for an address, until it is dropped.
#[derive(Debug)]
pub(crate) struct AnonymousSlot {
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
        let is_of_proxy = self.is_proxy(address);
        let anonymous = if is_of_proxy {
            None
        } else {
            self.count(address)?
        };
        Some(ConnectionHandle {
            connection: Arc::new(Connection {
                limits: self.clone(),
                anonymous,
                is_of_proxy,
                holder: Mutex::default(),
                permits: OnceLock::new(),
            }),
            request: None,
        })
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|proxy| proxy.contains(address))
    }

    /// The maximum for an address; `None` without a limit.
    fn most_at(&self, address: IpAddr) -> Option<usize> {
        let usual = (!canonical(address).is_loopback()).then_some(USUAL);
        self.most.or(usual)
    }

    /// Counts one more for this address, if its limit allows; an address without a limit is not
    /// counted.
    fn count(self: &Arc<Self>, address: IpAddr) -> Option<Option<AnonymousSlot>> {
        let Some(most) = self.most_at(address) else {
            return Some(None);
        };
        let client_prefix = client_prefix(address);
        let mut waiting = self.waiting.lock();
        let here = waiting.get(&client_prefix).copied().unwrap_or_default();
        if here >= most {
            return None;
        }
        waiting.insert(client_prefix, here + 1);
        drop(waiting);
        Some(Some(AnonymousSlot {
            limits: self.clone(),
            client_prefix,
            has_left: Mutex::new(false),
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
        let _ = self.connection.permits.set(permits);
    }

    /// Returns the holder of the key that the connection last used.
    pub(crate) fn holder(&self) -> Option<String> {
        self.connection.holder.lock().clone()
    }

    /// Returns the handle for a request of this client over the connection.
    pub(crate) fn for_request(&self, client: IpAddr) -> Self {
        let Connection {
            limits,
            is_of_proxy,
            ..
        } = &*self.connection;
        let is_client_of_proxy = *is_of_proxy && !limits.is_proxy(client);
        let request = is_client_of_proxy.then(|| {
            Arc::new(ProxiedRequest {
                client,
                has_valid_key: AtomicBool::new(false),
            })
        });
        Self {
            connection: self.connection.clone(),
            request,
        }
    }

    /// Counts the body of a request that came through a proxy and has shown no valid key, until
    /// the slot is dropped. Other bodies are not counted: their connections are.
    ///
    /// # Errors
    /// Too many such bodies of the client are arriving.
    pub(crate) fn count_body(&self) -> Result<Option<AnonymousSlot>, ApiError> {
        let limits = &self.connection.limits;
        let Some(request) = &self.request else {
            return Ok(None);
        };
        if request.has_valid_key.load(Ordering::Relaxed) {
            return Ok(None);
        }
        limits.count(request.client).ok_or_else(|| {
            let most = limits.most_at(request.client).unwrap_or_default();
            let message = format!(
                "{most} requests without a valid key are arriving from your address already; try \
                 again later"
            );
            ApiError::new(ErrorCode::TooManyConnections, message)
        })
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
            ..
        } = &*self.connection;
        if let Some(request) = &self.request {
            request.has_valid_key.store(true, Ordering::Relaxed);
        }
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
    fn only_so_many_bodies_without_a_key_arrive_from_a_client_behind_a_proxy() {
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        let limits = ConnectionLimits::new(Some(2), 9, &["10.0.0.1".parse().unwrap()]);
        let limits = Arc::new(limits);
        let connection = limits.enter(proxy).unwrap();
        let request = |client: &str| connection.for_request(client.parse().unwrap());
        let body = |client: &str| request(client).count_body();
        let (one, two) = (body("203.0.113.9").unwrap(), body("203.0.113.9").unwrap());
        let refused = body("203.0.113.9").unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooManyConnections);
        assert!(refused.message.contains("2 requests"), "{refused}");
        assert!(body("203.0.113.8").is_ok(), "another client");
        let with_key = request("203.0.113.9");
        with_key.count_for("a").unwrap();
        assert!(with_key.count_body().unwrap().is_none(), "it shows a key");
        assert!(
            body("203.0.113.9").is_err(),
            "the key was another request's"
        );
        for uncounted in [
            request("10.0.0.1"),
            limits.enter("198.51.100.7".parse().unwrap()).unwrap(),
        ] {
            assert!(uncounted.count_body().unwrap().is_none());
        }
        drop(one);
        drop(body("203.0.113.9").unwrap());
        drop(two);
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
