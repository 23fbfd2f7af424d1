//! What a crash between two writes leaves is mended: a service without its claims gets them, claims without their service go.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::IPAddress;
use orch_core::status::ApiError;
use orch_store::{KeyValue, ListOptions, StoreError};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::claims::{ADDRESSES, Claims, Owner, is_managed, key};
use super::{Pools, Services, Taken, belongings};
use crate::store_error;

/// How often it is looked, as upstream.
const PERIOD: Duration = Duration::from_secs(600);

/// How old a claim must be to be taken for one that was left behind, rather than one whose service is just being written.
const MIN_AGE: Duration = Duration::from_secs(60);

/// Where services are.
const SERVICES: &str = "/registry/services/specs/";

impl Services {
    /// Mends what there is, and again every ten minutes.
    pub(crate) async fn repair(&self) -> Result<(), ApiError> {
        let mut round = Round {
            pools: Arc::clone(&self.pools),
            claims: Arc::clone(&self.claims),
            leaked: BTreeSet::new(),
        };
        round.run().await?;
        self.tasks.spawn(move |shutdown| round.again(shutdown));
        Ok(())
    }
}

struct Round {
    pools: Arc<Mutex<Pools>>,
    claims: Arc<Claims>,
    /// Ports that nobody had the last time. A bit has no age: it has to be seen twice.
    leaked: BTreeSet<u16>,
}

impl Round {
    async fn again(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            if let Err(error) = self.run().await {
                tracing::warn!(%error, "the claims of services could not be checked");
            }
        }
    }

    async fn run(&mut self) -> Result<(), ApiError> {
        // Claims first: of what is claimed, the service may come later, but not go earlier unnoticed.
        let (ports, _) = self.claims.ports().await?;
        let claimed = self.list(ADDRESSES).await?;
        let owners = self.owners().await?;
        let keys: HashSet<&[u8]> = claimed.iter().map(|kv| &kv.key[..]).collect();
        for (taken, owner) in &owners {
            let has_claim = match taken {
                Taken::Ip(address) => keys.contains(&key(*address)[..]),
                Taken::Port(port) => ports.has(*port),
            };
            if !has_claim && self.is_ours(*taken) && self.claims.make(*taken, owner).await? {
                tracing::info!(?taken, service = owner.name, "a service's claim was missing");
            }
        }
        self.remove_addresses(&claimed, &owners).await?;
        let leaked: BTreeSet<u16> = ports
            .taken()
            .filter(|port| !owners.contains_key(&Taken::Port(*port)))
            .collect();
        for port in leaked.intersection(&self.leaked) {
            tracing::info!(port, "a node port was left behind");
            self.claims.change_ports(|ports| ports.release(*port)).await?;
        }
        self.leaked = leaked;
        Ok(())
    }

    async fn remove_addresses(
        &self,
        claimed: &[KeyValue],
        owners: &BTreeMap<Taken, Owner>,
    ) -> Result<(), ApiError> {
        for kv in claimed {
            let Ok(object) = serde_json::from_slice::<IPAddress>(&kv.value) else {
                continue;
            };
            let address = object.metadata.name.as_deref().and_then(|name| name.parse().ok());
            let is_used = address
                .and_then(|address| owners.get(&Taken::Ip(address)))
                .is_some_and(|owner| owner.has(&object));
            if is_used || !is_managed(&object) || !is_old(&object) {
                continue;
            }
            match self.claims.store().0.delete(&kv.key, Some(kv.mod_revision)).await {
                Ok(_) => tracing::info!(?address, "an address was left behind"),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
        Ok(())
    }

    /// Who has what. Two services with one address are an old fault: it is reported.
    async fn owners(&self) -> Result<BTreeMap<Taken, Owner>, ApiError> {
        let mut owners = BTreeMap::new();
        for kv in self.list(SERVICES).await? {
            let Ok(service) = serde_json::from_slice::<Service>(&kv.value) else {
                continue;
            };
            let owner = Owner::of(&service);
            for taken in belongings(&service) {
                if let Some(other) = owners.insert(taken, owner.clone()) {
                    tracing::warn!(?taken, ?owner, ?other, "two services have what one should");
                }
            }
        }
        Ok(owners)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<KeyValue>, ApiError> {
        let store = &self.claims.store().0;
        let page = store.list(prefix.as_bytes(), ListOptions::default()).await;
        Ok(page.map_err(store_error)?.items)
    }

    /// Whether it lies in the ranges that this server gives out.
    fn is_ours(&self, taken: Taken) -> bool {
        let pools = self.pools.lock();
        match taken {
            Taken::Ip(address) => pools.addresses.iter().any(|pool| pool.cidr().contains(address)),
            Taken::Port(port) => pools.ports.range().contains(&port),
        }
    }
}

fn is_old(object: &IPAddress) -> bool {
    let Some(created) = &object.metadata.creation_timestamp else {
        return true;
    };
    let age = Timestamp::now().duration_since(created.0);
    age.as_secs() >= MIN_AGE.as_secs().cast_signed()
}
