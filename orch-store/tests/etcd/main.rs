//! The store on real etcd servers: Debian's version and a current one, alone and as a cluster of three.
//!
//! `cargo xtask setup` brings the programs.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod server;

/// The kit, against a server of its own for each check.
mod conformance {
    use std::sync::Arc;
    use std::time::Duration;

    use orch_store::testkit::Fixture;
    use orch_store::{EtcdStore, Limits};

    use crate::server::{CURRENT, Cluster, DEBIAN, Server};

    fn fixture_of(store: EtcdStore) -> Fixture {
        let largest = 3 * 512 * 1024 - 32 * 1024;
        Fixture::new(Arc::new(store))
            .limits(Limits::default().max_value(largest))
            .ttl(Duration::from_secs(1))
    }

    mod debian {
        use super::*;

        async fn fixture() -> Fixture {
            let server = Server::alone(DEBIAN).await;
            fixture_of(server.store().await).keep(server)
        }

        orch_store::conformance!(fixture);
    }

    mod current {
        use super::*;

        async fn fixture() -> Fixture {
            let server = Server::alone(CURRENT).await;
            fixture_of(server.store().await).keep(server)
        }

        orch_store::conformance!(fixture);
    }

    /// One cluster for all, emptied in between: only a check's own store uses it.
    #[test]
    fn a_cluster_of_three_passes_too() {
        let cluster = orch_store::testkit::block_on(Cluster::start(DEBIAN));
        let fixture = || async {
            let mut client = cluster.members[0].client().await;
            let all = etcd_client::DeleteOptions::new().with_all_keys();
            client.delete("", Some(all)).await.unwrap();
            fixture_of(cluster.store().await)
        };
        orch_store::testkit::run_all(fixture, |name| eprintln!("{name}"));
    }
}
