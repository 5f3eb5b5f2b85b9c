//! A relay in this process, with keys and a clock for tests.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hearth_relay::{Relay, RelaySettings, SystemWorld, World, keys};
use proto::{Account, Timestamp};
use queue::{Ceiling, Keys as _, MemoryQueue, Queue as _, QueueCounts, Scope, Serve, Store};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{client::Client, in_time};

/// A relay on a port of its own, with the keys that a test needs.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<MemoryQueue>,
    relay: Relay,
    stop: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(RelaySettings::default()).await
    }

    pub(crate) async fn with(settings: RelaySettings) -> Self {
        Self::over(Arc::default(), settings).await
    }

    pub(crate) async fn over(store: Arc<MemoryQueue>, settings: RelaySettings) -> Self {
        Self::beside(store.clone(), store, settings).await
    }

    /// Starts a relay over a store that keeps its data in `store`.
    pub(crate) async fn beside(
        over: Arc<dyn Store>,
        store: Arc<MemoryQueue>,
        settings: RelaySettings,
    ) -> Self {
        Self::made(over, store, settings, Arc::new(SystemWorld)).await
    }

    /// Starts a relay whose clock the test moves.
    pub(crate) async fn at(clock: Arc<Ahead>, settings: RelaySettings) -> Self {
        let store: Arc<MemoryQueue> = Arc::default();
        Self::made(store.clone(), store, settings, clock).await
    }

    /// Starts a relay with a clock and randomness of the test's own.
    pub(crate) async fn in_world(world: Arc<dyn World>, settings: RelaySettings) -> Self {
        let store: Arc<MemoryQueue> = Arc::default();
        Self::made(store.clone(), store, settings, world).await
    }

    async fn made(
        over: Arc<dyn Store>,
        store: Arc<MemoryQueue>,
        settings: RelaySettings,
        world: Arc<dyn World>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let first = keys::KeyFor {
            name: "first".into(),
            account: Account::new("first").unwrap(),
            scopes: BTreeSet::new(),
            serve: Serve::All,
            ceiling: Ceiling::default(),
            expires_at: None,
        };
        let (_, record) = keys::mint(first, [255; 6], [255; 32], Timestamp(0));
        // After a restart the store already has the key.
        let _ = store.create_key(record).await;
        let relay = Relay::new(over, settings, world);
        let serve = hearth_relay::serve(listener, relay.clone(), stop.clone());
        let served = tokio::spawn(serve);
        Self {
            address,
            store,
            relay,
            stop,
            served,
        }
    }

    /// Serves the metrics too; returns their address.
    pub(crate) async fn metrics(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(hearth_relay::serve_metrics(listener, self.relay.clone()));
        address
    }

    /// Returns a client of the account `default` that may submit and read.
    pub(crate) async fn requester(&self) -> Client {
        self.client("default", &[Scope::Enqueue, Scope::Read]).await
    }

    pub(crate) async fn client(&self, account: &str, scopes: &[Scope]) -> Client {
        Client::new(self.base(), Some(self.key(account, scopes).await))
    }

    pub(crate) fn nobody(&self) -> Client {
        Client::new(self.base(), None)
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Creates a key; with the scope `work` it serves its own account.
    pub(crate) async fn key(&self, account: &str, scopes: &[Scope]) -> String {
        self.limited_key(account, scopes, Ceiling::default(), None)
            .await
    }

    /// Creates a key with limits and an optional expiry.
    pub(crate) async fn limited_key(
        &self,
        account: &str,
        scopes: &[Scope],
        ceiling: Ceiling,
        expires_at: Option<Timestamp>,
    ) -> String {
        let account = Account::new(account).unwrap();
        let serve = Serve::Accounts(BTreeSet::from([account.clone()]));
        // The store's first key is the one that allows the relay to start.
        let n = self.store.list_keys().await.unwrap().len() - 1;
        let for_ = keys::KeyFor {
            name: format!("key-{n}"),
            account,
            scopes: scopes.iter().copied().collect(),
            serve,
            ceiling,
            expires_at,
        };
        let id = SystemWorld.random().unwrap()[..6].try_into().unwrap();
        let (text, record) = keys::mint(for_, id, SystemWorld.random().unwrap(), SystemWorld.now());
        self.store.create_key(record).await.unwrap();
        text.reveal().to_owned()
    }

    /// Waits until the queue's counts are as expected.
    pub(crate) async fn until(&self, holds: impl Fn(QueueCounts) -> bool) {
        let mut arrivals = self.store.arrivals();
        while !holds(self.store.counts()) {
            in_time(arrivals.changed()).await.unwrap();
        }
    }

    /// Begins the shutdown without waiting for its end.
    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    pub(crate) async fn stop(self) -> std::io::Result<()> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until the relay has ended.
    pub(crate) async fn ended(mut self) -> std::io::Result<()> {
        in_time(&mut self.served).await.unwrap()
    }
}

/// The real clock, moved forward by the test.
#[derive(Debug, Default)]
pub(crate) struct Ahead(AtomicU64);

impl Ahead {
    pub(crate) fn by(&self, ahead: Duration) {
        let millis = u64::try_from(ahead.as_millis()).unwrap();
        self.0.store(millis, Ordering::Relaxed);
    }
}

impl World for Ahead {
    fn now(&self) -> Timestamp {
        SystemWorld.now() + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn random(&self) -> std::io::Result<[u8; 32]> {
        SystemWorld.random()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
