//! An API server on its own, for kubectl: no node, no controller, nothing installed.
//!
//! ```text
//! cargo run -p orch-api --example api-server -- [KUBECONFIG] [DATA-DIRECTORY]
//! kubectl --kubeconfig KUBECONFIG api-resources
//! ```
//!
//! Without a data directory everything is kept in memory. Ctrl-C stops it.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orch_api::ApiServer;
use orch_core::pki::{self, CertificateAuthority, ClientCertificates, Leaf};
use orch_core::serve::Server;
use orch_store::{EmbeddedStore, MemoryStore, Store};
use serde_json::json;
use tokio_util::sync::CancellationToken;

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let kubeconfig = arguments
        .next()
        .unwrap_or_else(|| "api-server.kubeconfig".to_owned());
    let store: Arc<dyn Store> = match arguments.next() {
        Some(directory) => Arc::new(EmbeddedStore::open(directory).await?),
        None => Arc::new(MemoryStore::new()),
    };

    // The certificates: an authority of our own, one for the server, one for the administrator.
    let authority = CertificateAuthority::create("example")?;
    let identity = authority.issue(&Leaf::server("kube-apiserver", ["localhost", "127.0.0.1"]))?;
    let admin = authority.issue(&Leaf::client("kubernetes-admin", Some("system:masters")))?;
    let clients = Some((authority.certificate_pem(), ClientCertificates::Optional));
    let tls = pki::server_config(&identity, clients)?;

    let listener = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    let server = ApiServer::builder(store).build().await?;

    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "example",
        "clusters": [{"name": "example", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": STANDARD.encode(authority.certificate_pem()),
        }}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": STANDARD.encode(&admin.certificate_pem),
            "client-key-data": STANDARD.encode(&admin.key_pem),
        }}],
        "contexts": [{"name": "example", "context": {"cluster": "example", "user": "admin"}}],
    });
    // The key in it is a secret.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&kubeconfig)?;
    file.write_all(config.to_string().as_bytes())?;
    writeln!(
        std::io::stdout(),
        "https://{address}\nkubectl --kubeconfig {kubeconfig} get namespaces"
    )?;

    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::join!(server.serve(listener.tls(tls), shutdown), async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    Ok(())
}
