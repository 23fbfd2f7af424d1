//! Both stores of this crate pass the kit.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::sync::Arc;

use orch_store::testkit::Fixture;
use orch_store::{EmbeddedStore, MemoryStore};

mod memory {
    use super::*;

    async fn fixture() -> Fixture {
        Fixture::new(Arc::new(MemoryStore::new()))
    }

    orch_store::conformance!(fixture);
}

mod embedded {
    use super::*;

    async fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path()).await.unwrap();
        Fixture::new(Arc::new(store)).keep(directory)
    }

    orch_store::conformance!(fixture);
}

/// Small files and a checkpoint at every chance, so that the log rolls over and is cut off all the time.
mod embedded_in_small_files {
    use super::*;

    async fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::options()
            .segment_size(4096)
            .checkpoint_after(0)
            .open(directory.path())
            .await
            .unwrap();
        Fixture::new(Arc::new(store)).keep(directory)
    }

    orch_store::conformance!(fixture);
}

/// Everything volatile, so that writes are shown before they are on disk.
mod embedded_volatile {
    use super::*;

    async fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::options()
            .segment_size(4096)
            .checkpoint_after(0)
            .volatile_prefix("")
            .open(directory.path())
            .await
            .unwrap();
        Fixture::new(Arc::new(store)).keep(directory)
    }

    orch_store::conformance!(fixture);
}
