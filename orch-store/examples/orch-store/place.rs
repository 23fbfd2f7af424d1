//! Where a store is, in one word.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orch_store::{EmbeddedOptions, Store, StoreError};

use crate::access::Access;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The folder of an embedded store. For some commands it may turn out to be a file.
    Folder(PathBuf),
    /// The endpoints of an etcd, each with its scheme.
    Etcd(Vec<String>),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(rest) = text.strip_prefix("http://") {
            return endpoints("http://", rest);
        }
        if let Some(rest) = text.strip_prefix("https://") {
            return endpoints("https://", rest);
        }
        if text.is_empty() {
            return Err("a folder or http(s)://HOST:PORT is needed".to_owned());
        }
        if text.contains("://") {
            return Err("an etcd begins with http:// or https://".to_owned());
        }
        Ok(Self::Folder(text.into()))
    }
}

/// Endpoints after the first may leave out the scheme.
fn endpoints(scheme: &str, rest: &str) -> Result<Place, String> {
    let endpoint = |part: &str| {
        let host = part.strip_prefix(scheme).unwrap_or(part).trim_end_matches('/');
        if host.contains("://") {
            return Err("all endpoints need the same scheme".to_owned());
        }
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        if name.is_empty() || port.parse::<u16>().is_err() {
            return Err(format!("{part:?} is not HOST:PORT"));
        }
        Ok(format!("{scheme}{host}"))
    };
    rest.split(',')
        .map(endpoint)
        .collect::<Result<_, _>>()
        .map(Place::Etcd)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Etcd(endpoints) => f.write_str(&endpoints.join(",")),
        }
    }
}

impl Place {
    /// Opens the store for reading and writing; a folder with these options.
    pub(crate) async fn open(
        &self,
        access: &Access,
        options: EmbeddedOptions,
    ) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            Self::Folder(path) => Ok(Arc::new(options.open(path).await?)),
            Self::Etcd(endpoints) => Ok(connect(access, endpoints).await?.store),
        }
    }

    /// Whether both are the same store, as far as can be told.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Folder(one), Self::Folder(other)) => match (one.canonicalize(), other.canonicalize()) {
                (Ok(one), Ok(other)) => one == other,
                _ => one == other,
            },
            (Self::Etcd(one), Self::Etcd(other)) => one.iter().any(|endpoint| other.contains(endpoint)),
            _ => false,
        }
    }
}

/// An etcd that was connected to.
pub(crate) struct Etcd {
    pub(crate) store: Arc<dyn Store>,
    #[cfg(feature = "etcd")]
    etcd: Arc<orch_store::EtcdStore>,
}

#[cfg(feature = "etcd")]
pub(crate) async fn connect(access: &Access, endpoints: &[String]) -> anyhow::Result<Etcd> {
    let etcd = Arc::new(access.options(endpoints)?.connect().await?);
    Ok(Etcd {
        store: Arc::clone(&etcd) as Arc<dyn Store>,
        etcd,
    })
}

#[cfg(feature = "etcd")]
impl Etcd {
    /// The keys that end by themselves, with the time that they have left.
    pub(crate) async fn times_to_live(&self, prefix: &[u8]) -> Result<HashMap<Bytes, Duration>, StoreError> {
        self.etcd.times_to_live(prefix).await
    }
}

#[cfg(not(feature = "etcd"))]
pub(crate) async fn connect(_access: &Access, endpoints: &[String]) -> anyhow::Result<Etcd> {
    anyhow::bail!(
        "{} is an etcd, and this orch-store was built without: build it with \
         `cargo build --release --features etcd --example orch-store`, for which protoc is needed",
        endpoints.join(",")
    )
}

#[cfg(not(feature = "etcd"))]
impl Etcd {
    /// Never called: there is no such value.
    pub(crate) async fn times_to_live(&self, _: &[u8]) -> Result<HashMap<Bytes, Duration>, StoreError> {
        Ok(HashMap::new())
    }
}
