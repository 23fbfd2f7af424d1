//! Memory follows the claims in the store, whichever server makes them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use orch_store::{EventKind, ListOptions, Revision, StoreError};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::claims::{ADDRESSES, Claims, PORTS};
use super::ports::PortMap;
use super::{Pools, Services, Taken};

/// How long to wait before beginning anew when the store fails.
const PAUSE: Duration = Duration::from_millis(500);

impl Services {
    /// Learns what is claimed now, and what will be. Returns when memory has what was claimed before the call.
    pub(crate) async fn follow(&self) -> Result<(), StoreError> {
        let mut follower = Follower {
            pools: Arc::clone(&self.pools),
            claims: Arc::clone(&self.claims),
            known: BTreeSet::new(),
        };
        let addresses = follower.list_addresses().await?;
        let ports = follower.list_ports().await?;
        self.tasks
            .spawn(move |shutdown| follower.run(addresses, ports, shutdown));
        Ok(())
    }
}

struct Follower {
    pools: Arc<Mutex<Pools>>,
    claims: Arc<Claims>,
    /// What memory has from here.
    known: BTreeSet<Taken>,
}

impl Follower {
    async fn run(mut self, mut addresses: Revision, mut ports: Revision, shutdown: CancellationToken) {
        loop {
            let error = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.watch(addresses, ports) => ended,
            };
            tracing::debug!(?error, "the claims of services are listed anew");
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
                match (self.list_addresses().await, self.list_ports().await) {
                    (Ok(one), Ok(other)) => {
                        (addresses, ports) = (one, other);
                        break;
                    }
                    (Err(StoreError::Closed), _) | (_, Err(StoreError::Closed)) => return,
                    _ => {}
                }
            }
        }
    }

    /// Follows both until one of the watches ends.
    async fn watch(&mut self, addresses: Revision, ports: Revision) -> Result<(), StoreError> {
        let store = self.claims.store().0.clone();
        let mut addresses = store.watch(ADDRESSES.as_bytes(), addresses).await?;
        let mut ports = store.watch(PORTS.as_bytes(), ports).await?;
        loop {
            tokio::select! {
                batch = addresses.next() => {
                    for event in batch?.events {
                        if let Some(address) = address_of(event.key()) {
                            self.set(address, event.kind == EventKind::Put);
                        }
                    }
                }
                batch = ports.next() => {
                    if let Some(event) = batch?.events.last() {
                        self.set_ports(&event.kv.value);
                    }
                }
            }
        }
    }

    async fn list_addresses(&mut self) -> Result<Revision, StoreError> {
        let store = &self.claims.store().0;
        let page = store.list(ADDRESSES.as_bytes(), ListOptions::default()).await?;
        let claimed: BTreeSet<Taken> = page.items.iter().filter_map(|kv| address_of(&kv.key)).collect();
        let gone = self
            .known
            .iter()
            .filter(|taken| matches!(taken, Taken::Ip(_)) && !claimed.contains(taken));
        for taken in gone.copied().collect::<Vec<_>>() {
            self.set(taken, false);
        }
        for taken in claimed {
            self.set(taken, true);
        }
        Ok(page.revision)
    }

    async fn list_ports(&mut self) -> Result<Revision, StoreError> {
        let store = &self.claims.store().0;
        let read = store.get(PORTS.as_bytes(), None).await?;
        self.set_ports(read.kv.as_ref().map_or(b"", |kv| &kv.value));
        Ok(read.revision)
    }

    /// Takes over the ports that are claimed; nothing stored means none.
    fn set_ports(&mut self, stored: &[u8]) {
        let range = self.pools.lock().ports.range();
        let map = match stored {
            b"" => PortMap::new(range),
            stored => match PortMap::read(stored, range) {
                Ok(map) => map,
                Err(error) => return tracing::error!(error, "node ports may be given out twice"),
            },
        };
        let claimed: BTreeSet<Taken> = map.taken().map(Taken::Port).collect();
        let gone = self
            .known
            .iter()
            .filter(|taken| matches!(taken, Taken::Port(_)) && !claimed.contains(taken));
        for taken in gone.copied().collect::<Vec<_>>() {
            self.set(taken, false);
        }
        for taken in claimed {
            self.set(taken, true);
        }
    }

    fn set(&mut self, taken: Taken, is_claimed: bool) {
        let mut pools = self.pools.lock();
        if is_claimed {
            if self.known.insert(taken) {
                pools.take(taken);
            }
        } else if self.known.remove(&taken) {
            pools.release(&[taken]);
        }
    }
}

fn address_of(key: &[u8]) -> Option<Taken> {
    let name = key.strip_prefix(ADDRESSES.as_bytes())?;
    let name = std::str::from_utf8(name).ok()?;
    name.parse().ok().map(Taken::Ip)
}
