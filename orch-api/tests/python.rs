//! The Python client of Kubernetes, over HTTPS.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use orch_api::testkit::TestServer;
use tokio::process::Command;

/// Where `cargo xtask setup` has put the client.
fn library() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let library = target.join("peers/python");
    assert!(
        library.join("kubernetes").is_dir(),
        "the Python client is missing in {}: run `cargo xtask setup` once",
        library.display()
    );
    library
}

#[tokio::test]
async fn the_python_client_notices_no_difference() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, server.kubeconfig().await).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/python.py");
    let output = Command::new("python3")
        .arg(script)
        .arg(&kubeconfig)
        .env("PYTHONPATH", library())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HOME", folder.path())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("as with Kubernetes").count(), 5, "{told}");
}
