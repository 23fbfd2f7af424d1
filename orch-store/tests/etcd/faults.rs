//! Members of a cluster that stop, die or get slow under load. Nothing is lost, nothing is doubled, and one order explains all
//! answers.

use std::future::Future;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use orch_store::testkit::{Fixture, checks};
use orch_store::{EtcdOptions, Store};
use tokio::sync::Mutex;

use crate::server::{CURRENT, Cluster, DEBIAN, Server};

/// Runs the checks that are about disruption, disrupting the servers so.
pub(crate) async fn check<S, F>(
    servers: S,
    options: EtcdOptions,
    disrupt: impl Fn(Arc<Mutex<S>>) -> F + Copy + Send + Sync + 'static,
) where
    S: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let servers = Arc::new(Mutex::new(servers));
    let options = options.request_timeout(Duration::from_secs(5));
    let fixture = || async {
        let servers = Arc::clone(&servers);
        let store = options.clone().connect().await.unwrap();
        Fixture::new(Arc::new(store))
            .patience(Duration::from_secs(60))
            .disrupt(move || disrupt(Arc::clone(&servers)))
    };
    checks::a_disrupted_watch_misses_nothing(&fixture().await).await;
    let fixture = fixture().await;
    let keys = fixture
        .store()
        .list(b"disruption/", Default::default())
        .await
        .unwrap();
    for kv in keys.items {
        fixture.store().delete(&kv.key, None).await.unwrap();
    }
    checks::disrupted_histories_are_linearizable(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hangs_is_passed_over() {
    let cluster = Cluster::start(DEBIAN).await;
    let options = cluster.options();
    check(cluster, options, |cluster| async move {
        let cluster = cluster.lock().await;
        // The first is the one that a new store begins with.
        cluster.members[0].signal("STOP");
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.members[0].signal("CONT");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hangs_is_replaced_and_told_when_it_wakes() {
    let cluster = Cluster::start(CURRENT).await;
    let options = cluster.options();
    check(cluster, options, |cluster| async move {
        let cluster = cluster.lock().await;
        let leader = cluster.leader(&[0, 1, 2]).await;
        cluster.members[leader].signal("STOP");
        let rest: Vec<_> = (0..3).filter(|index| *index != leader).collect();
        cluster.leader(&rest).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.members[leader].signal("CONT");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_that_die_take_nothing_with_them() {
    let cluster = Cluster::start(CURRENT).await;
    let options = cluster.options();
    check(cluster, options, |cluster| async move {
        let mut cluster = cluster.lock().await;
        let [first, second] = fastrand::choose_multiple(0..3, 2).try_into().unwrap();
        for index in [first, second] {
            cluster.members[index].kill();
        }
        // Without a majority nothing is written meanwhile.
        tokio::time::sleep(Duration::from_millis(500)).await;
        for index in [first, second] {
            cluster.members[index].restart();
        }
        for index in [first, second] {
            cluster.members[index].wait().await;
        }
    })
    .await;
}

/// Delays every `fdatasync` of a process until it is dropped.
struct SlowDisk(Child);

impl SlowDisk {
    fn of(server: &Server, delay: Duration) -> Self {
        let inject = format!("inject=fdatasync:delay_enter={}", delay.as_micros());
        let child = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "trace=fdatasync",
                "-e",
                &inject,
            ])
            .args(["-p", &server.pid().to_string()])
            .stdin(Stdio::null())
            .spawn();
        Self(child.expect("strace is missing: run `cargo xtask setup`"))
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // Asked to end it lets go of the process; killed it would leave it stopped.
        crate::server::run("kill", &["-TERM", &self.0.id().to_string()]);
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_makes_slow_and_nothing_else() {
    let server = Server::alone(DEBIAN).await;
    let options = server.options();
    {
        let store = server.store().await;
        let slow = SlowDisk::of(&server, Duration::from_millis(300));
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = std::time::Instant::now();
        store.create("slow/a".into(), "v".into(), None).await.unwrap();
        assert!(began.elapsed() > Duration::from_millis(200), "the disk is slow");
        drop(slow);
    }
    check(server, options, |server| async move {
        let server = server.lock().await;
        let _slow = SlowDisk::of(&server, Duration::from_millis(300));
        tokio::time::sleep(Duration::from_secs(3)).await;
    })
    .await;
}
