//! The userspace backend in a process without root: the test runs itself again as an unprivileged user.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use orch_net::userspace::{UserspaceBackend, UserspaceConfig};
use orch_net::{Changes, ProxyBackend, Tracker};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const CHILD: &str = "ORCH_NET_TEST_UNPRIVILEGED";
const NOBODY: u32 = 65534;

#[test]
fn without_root_loopback_addresses_are_served_and_others_reported() {
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(unprivileged());
    }
    // A copy where anybody may read it.
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut child = Command::new(&program);
    child.env(CHILD, "1").current_dir("/");
    if nix::unistd::geteuid().is_root() {
        child.uid(NOBODY).gid(NOBODY);
    }
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A TCP and UDP endpoint on loopback.
async fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"hello").await.ok();
        }
    });
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..length], peer).await.ok();
        }
    });
    address
}

fn service(name: &str, ip: &str) -> orch_net::objects::Service {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": name},
        "spec": {"clusterIP": ip, "ports": [
            {"name": "tcp", "port": 8321, "protocol": "TCP"}, {"name": "udp", "port": 8321, "protocol": "UDP"}]},
    }))
    .unwrap()
}

async fn unprivileged() {
    assert!(!nix::unistd::geteuid().is_root());
    let target = endpoint().await;
    // Nobody listens at port 1: the connection is retried at the other endpoint.
    let mut tracker = Tracker::new("node");
    tracker.apply_service(&service("here", "127.77.0.1"));
    tracker.apply_service(&service("elsewhere", "10.96.0.1"));
    for name in ["here", "elsewhere"] {
        for (suffix, port) in [("live", target.port()), ("dead", 1)] {
            let mut ports = vec![json!({"name": "tcp", "port": port, "protocol": "TCP"})];
            if suffix == "live" {
                ports.push(json!({"name": "udp", "port": port, "protocol": "UDP"}));
            }
            let slice = json!({
                "metadata": {"namespace": "ns", "name": format!("{name}-{suffix}"), "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4", "ports": ports, "endpoints": [{"addresses": ["127.0.0.1"]}],
            });
            tracker.apply_slice(&serde_json::from_value(slice).unwrap());
        }
    }
    tracker.take_changes();
    let mut backend = UserspaceBackend::new(UserspaceConfig::default());
    backend.probe().await.unwrap();
    let report = backend.sync(tracker.state(), &Changes::All).await.unwrap();
    assert_eq!(report.unserved.len(), 2, "{report:?}");
    for unserved in &report.unserved {
        assert_eq!(unserved.key.service.name(), "elsewhere");
        assert!(unserved.message.contains("run as root"), "{}", unserved.message);
    }
    for _ in 0..20 {
        let mut text = String::new();
        TcpStream::connect("127.77.0.1:8321")
            .await
            .unwrap()
            .read_to_string(&mut text)
            .await
            .unwrap();
        assert_eq!(text, "hello");
    }
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect("127.77.0.1:8321").await.unwrap();
    client.send(b"ping").await.unwrap();
    let mut buffer = [0; 64];
    assert_eq!(client.recv(&mut buffer).await.unwrap(), 4);
    backend.stop().await;
}
