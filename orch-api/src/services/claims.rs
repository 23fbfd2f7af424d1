use std::net::IpAddr;
use std::ops::RangeInclusive;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use orch_core::status::ApiError;
use orch_store::{KeyValue, StoreError};

use super::Taken;
use super::ports::PortMap;
use crate::cache::StoreHandle;
use crate::object::Object;
use crate::registry::live::encode;
use crate::store_error;

/// Where IPAddress objects are.
pub(super) const ADDRESSES: &str = "/registry/ipaddresses/";
/// Where upstream keeps the node ports that are taken.
pub(super) const PORTS: &str = "/registry/ranges/servicenodeports";

/// How often a change of the ports is tried when others change them too.
const ATTEMPTS: usize = 32;

const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "ipallocator.k8s.io";

/// The service that a claim is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Owner {
    pub(super) fn of(service: &Service) -> Self {
        Self {
            namespace: service.metadata.namespace.clone().unwrap_or_default(),
            name: service.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Whether an address belongs to this service.
    pub(super) fn has(&self, address: &IPAddress) -> bool {
        let parent = &address.spec.parent_ref;
        parent.resource == "services"
            && parent.group.as_deref().unwrap_or_default().is_empty()
            && parent.namespace.as_deref() == Some(&self.namespace)
            && parent.name == self.name
    }
}

/// The claims in the store.
#[derive(Debug)]
pub(super) struct Claims {
    store: StoreHandle,
    ports: RangeInclusive<u16>,
}

impl Claims {
    pub(super) fn new(store: StoreHandle, ports: RangeInclusive<u16>) -> Self {
        Self { store, ports }
    }

    pub(super) fn store(&self) -> &StoreHandle {
        &self.store
    }

    /// Claims it; false when it has a claim already.
    pub(super) async fn make(&self, taken: Taken, owner: &Owner) -> Result<bool, ApiError> {
        match taken {
            Taken::Ip(address) => self.make_address(address, owner).await,
            Taken::Port(port) => self.change_ports(|ports| ports.take(port)).await,
        }
    }

    /// Removes a claim, if it is there and is this service's.
    pub(super) async fn remove(&self, taken: Taken, owner: &Owner) -> Result<(), ApiError> {
        match taken {
            Taken::Ip(address) => self.remove_address(address, owner).await,
            Taken::Port(port) => {
                let changed = self.change_ports(|ports| ports.release(port)).await;
                changed.map(drop)
            }
        }
    }

    async fn make_address(&self, address: IpAddr, owner: &Owner) -> Result<bool, ApiError> {
        let mut object = address_object(address, owner);
        let value = encode(&mut object);
        match self.store.0.create(key(address), value, None).await {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(store_error(error)),
        }
    }

    async fn remove_address(&self, address: IpAddr, owner: &Owner) -> Result<(), ApiError> {
        let read = self.store.0.get(&key(address), None).await.map_err(store_error)?;
        let Some(kv) = read.kv else { return Ok(()) };
        let is_owners = serde_json::from_slice(&kv.value).is_ok_and(|object| owner.has(&object));
        if !is_owners {
            return Ok(());
        }
        match self.store.0.delete(&kv.key, Some(kv.mod_revision)).await {
            // Somebody else was faster, with whatever it was.
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(store_error(error)),
        }
    }

    /// The node ports that are taken, and the state of the store that this is.
    pub(super) async fn ports(&self) -> Result<(PortMap, Option<KeyValue>), ApiError> {
        let read = self
            .store
            .0
            .get(PORTS.as_bytes(), None)
            .await
            .map_err(store_error)?;
        let map = match &read.kv {
            None => PortMap::new(self.ports.clone()),
            Some(kv) => PortMap::read(&kv.value, self.ports.clone()).map_err(ApiError::internal)?,
        };
        Ok((map, read.kv))
    }

    /// Changes which ports are taken; the answer is that of `change`, and nothing is written when it is false.
    pub(super) async fn change_ports(&self, change: impl Fn(&mut PortMap) -> bool) -> Result<bool, ApiError> {
        for _ in 0..ATTEMPTS {
            let (mut ports, current) = self.ports().await?;
            if !change(&mut ports) {
                return Ok(false);
            }
            let (key, value) = (Bytes::from_static(PORTS.as_bytes()), ports.write());
            let written = match current {
                None => self.store.0.create(key, value, None).await,
                Some(kv) => self.store.0.update(key, value, kv.mod_revision, None).await,
            };
            match written {
                Ok(_) => return Ok(true),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(store_error(error)),
            }
        }
        Err(ApiError::internal(
            "the node ports are changed by too many at once",
        ))
    }
}

pub(super) fn key(address: IpAddr) -> Bytes {
    format!("{ADDRESSES}{address}").into()
}

fn address_object(address: IpAddr, owner: &Owner) -> IPAddress {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let labels = [(FAMILY, family), (MANAGED_BY, MANAGER)];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    IPAddress {
        metadata: ObjectMeta {
            name: Some(address.to_string()),
            uid: Some(uuid::Uuid::new_v4().to_string()),
            creation_timestamp: Some(Time(jiff::Timestamp::now())),
            generation: Some(1),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        spec: IPAddressSpec {
            parent_ref: ParentReference {
                group: None,
                resource: "services".to_owned(),
                namespace: Some(owner.namespace.clone()),
                name: owner.name.clone(),
            },
        },
    }
}

/// Whether an address was claimed for a service by an allocator, rather than written by a user.
pub(super) fn is_managed(address: &IPAddress) -> bool {
    let labels = address.metadata().labels.as_ref();
    labels
        .and_then(|labels| labels.get(MANAGED_BY))
        .is_some_and(|by| by == MANAGER)
}
