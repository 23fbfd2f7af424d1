//! Where objects are kept.

use std::sync::Arc;

use anyhow::{Context, bail};
use orch_store::{EmbeddedStore, MemoryStore, Store};

use crate::assemble::private_folder;
use crate::options::{Options, StoreChoice};

/// Opens the store that was chosen.
pub(crate) async fn open(options: &Options) -> anyhow::Result<Arc<dyn Store>> {
    if options.store != StoreChoice::Etcd && options.etcd.are_given() {
        bail!("the --etcd-... flags mean something with --store etcd only");
    }
    private_folder(&options.data_dir)?;
    match options.store {
        StoreChoice::Memory => Ok(Arc::new(MemoryStore::new())),
        StoreChoice::Embedded => {
            let store = EmbeddedStore::open(options.data_dir.join("store")).await;
            let store = store.context(
                "cannot open the store: if another process runs on it, stop that one or choose another --data-dir",
            )?;
            Ok(Arc::new(store))
        }
        StoreChoice::Etcd => etcd(options).await,
    }
}

/// Says where that is.
pub(crate) fn words(options: &Options) -> String {
    match options.store {
        StoreChoice::Memory => "in memory: gone when this ends".to_owned(),
        StoreChoice::Embedded => options.data_dir.join("store").display().to_string(),
        StoreChoice::Etcd => format!("etcd at {}", options.etcd.servers().join(", ")),
    }
}

#[cfg(feature = "etcd")]
async fn etcd(options: &Options) -> anyhow::Result<Arc<dyn Store>> {
    use orch_store::EtcdStore;

    let flags = &options.etcd;
    let read = |path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut etcd = EtcdStore::options();
    for url in flags.servers() {
        etcd = etcd.endpoint(url);
    }
    if let Some(path) = &flags.etcd_cafile {
        etcd = etcd.ca(read(path)?);
    }
    if let (Some(certificate), Some(key)) = (&flags.etcd_certfile, &flags.etcd_keyfile) {
        etcd = etcd.identity(read(certificate)?, read(key)?);
    }
    let store = etcd.connect().await;
    let store = store.context("cannot reach etcd: see that it runs and that --etcd-servers names it")?;
    Ok(Arc::new(store))
}

#[cfg(not(feature = "etcd"))]
async fn etcd(_: &Options) -> anyhow::Result<Arc<dyn Store>> {
    bail!(
        "this program was built without etcd; with protoc installed, \
         `cargo run --release --features etcd --example cluster -- --store etcd` builds it in"
    )
}
