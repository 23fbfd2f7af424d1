//! A revisioned key-value store with watch: one trait, in memory or durable on disk.
//!
//! [`Store`] has the semantics of etcd as kube-apiserver uses it: one revision counter for the whole
//! store, guarded writes, prefix lists pinned to a revision, watches that lose nothing, compaction and
//! time-to-live. [`MemoryStore`] keeps everything in memory, [`EmbeddedStore`] acknowledges a write when
//! it is on disk. Both pass the conformance kit in `testkit` (a feature), which any other implementation
//! can run in its own `cargo test`.
//!
//! ```
//! use orch_store::{ListOptions, MemoryStore, Revision, Store};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let store = MemoryStore::new();
//! let start = store.current_revision().await?;
//!
//! let created = store.create("/registry/pods/default/web".into(), "{}".into(), None).await?;
//! let updated = store
//!     .update(created.key.clone(), r#"{"a":1}"#.into(), created.mod_revision, None)
//!     .await?;
//! assert!(updated.mod_revision > created.mod_revision);
//!
//! let page = store.list(b"/registry/pods/", ListOptions::default()).await?;
//! assert_eq!(page.items, [updated]);
//!
//! let mut watcher = store.watch(b"/registry/pods/", start).await?;
//! let batch = watcher.next().await?;
//! assert_eq!(batch.events.len(), 2);
//! assert_eq!(batch.events[1].previous.as_ref(), Some(&created));
//! # Ok::<_, orch_store::StoreError>(()) }).unwrap();
//! ```

mod compactor;
pub mod disk;
mod embedded;
mod engine;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
pub mod fanout;
mod kv;
mod limits;
mod memory;
mod revision;
mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
mod watch;

pub use compactor::Compactor;
pub use embedded::{
    EmbeddedOptions, EmbeddedStore, Import, ImportError, OpenError, Snapshot, SnapshotContent, SnapshotFile,
};
pub use error::StoreError;
#[cfg(feature = "etcd")]
pub use etcd::{EtcdOptions, EtcdStore};
pub use kv::{Event, EventKind, KeyValue};
pub use limits::Limits;
pub use memory::MemoryStore;
pub use revision::Revision;
pub use store::{Deleted, Health, ListOptions, ListPage, Read, Store};
pub use watch::{ProgressRequester, WatchBatch, Watcher};
