//! The kit, against a server of its own for each check, and against a cluster.

use std::sync::Arc;
use std::time::Duration;

use orch_store::testkit::Fixture;
use orch_store::{EtcdStore, Limits};
use tokio::sync::Mutex;

use crate::server::{CURRENT, Cluster, DEBIAN, Server};

fn fixture_of(store: EtcdStore) -> Fixture {
    let largest = 3 * 512 * 1024 - 32 * 1024;
    Fixture::new(Arc::new(store))
        .limits(Limits::default().max_value(largest))
        .ttl(Duration::from_secs(1))
}

/// A server that is killed and started again to disrupt the store.
async fn fixture_alone(program: &'static str) -> Fixture {
    let server = Server::alone(program).await;
    let store = server.options().request_timeout(Duration::from_secs(5));
    let fixture = fixture_of(store.connect().await.unwrap());
    let server = Arc::new(Mutex::new(server));
    fixture.disrupt(move || {
        let server = Arc::clone(&server);
        async move {
            let mut server = server.lock().await;
            server.kill();
            server.restart();
            server.wait().await;
        }
    })
}

mod debian {
    use super::*;

    async fn fixture() -> Fixture {
        fixture_alone(DEBIAN).await
    }

    orch_store::conformance!(fixture);
}

mod current {
    use super::*;

    async fn fixture() -> Fixture {
        fixture_alone(CURRENT).await
    }

    orch_store::conformance!(fixture);
}

/// One cluster for all, emptied in between: only a check's own store uses it. It is disrupted by killing its leader.
#[test]
fn a_cluster_of_three_passes_too() {
    let cluster = orch_store::testkit::block_on(Cluster::start(DEBIAN));
    let cluster = Arc::new(Mutex::new(cluster));
    let fixture = || async {
        let store = {
            let cluster = cluster.lock().await;
            let mut client = cluster.members[0].client().await;
            let all = etcd_client::DeleteOptions::new().with_all_keys();
            client.delete("", Some(all)).await.unwrap();
            cluster.options().request_timeout(Duration::from_secs(5))
        };
        let cluster = Arc::clone(&cluster);
        fixture_of(store.connect().await.unwrap()).disrupt(move || {
            let cluster = Arc::clone(&cluster);
            async move {
                let mut cluster = cluster.lock().await;
                let leader = cluster.leader(&[0, 1, 2]).await;
                cluster.members[leader].kill();
                let rest: Vec<_> = (0..3).filter(|index| *index != leader).collect();
                cluster.leader(&rest).await;
                cluster.members[leader].restart();
                cluster.members[leader].wait().await;
            }
        })
    };
    orch_store::testkit::run_all(fixture, |name| eprintln!("{name}"));
}
