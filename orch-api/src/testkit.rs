//! A real API server for tests: in memory, isolated, ready in milliseconds, gone on drop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use orch_core::pki::{self, CertificateAuthority, ClientCertificates, Credential, Leaf};
use orch_core::serve::Server;
use orch_store::MemoryStore;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{ApiServer, ApiServerBuilder, UserInfo};

/// An API server on a memory store.
///
/// ```
/// use k8s_openapi::api::core::v1::Namespace;
/// use kube::Api;
///
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// let server = orch_api::testkit::TestServer::start().await;
/// let namespaces: Api<Namespace> = Api::all(server.client());
/// assert!(namespaces.get_opt("default").await.unwrap().is_some());
/// # });
/// ```
#[derive(Debug)]
pub struct TestServer {
    server: ApiServer,
    shutdown: CancellationToken,
    _stops: DropGuard,
    https: OnceCell<Https>,
}

#[derive(Debug)]
struct Https {
    address: SocketAddr,
    authority: CertificateAuthority,
    task: JoinHandle<()>,
}

impl Drop for Https {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestServer {
    /// Starts a server with the defaults.
    ///
    /// # Panics
    /// When it cannot start.
    pub async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    /// Starts a server after `change` has set what the test needs.
    ///
    /// # Panics
    /// When it cannot start.
    pub async fn start_with(change: impl FnOnce(ApiServerBuilder) -> ApiServerBuilder) -> Self {
        let builder = change(ApiServer::builder(Arc::new(MemoryStore::new())));
        let server = builder.build().await.expect("a server on a memory store starts");
        let shutdown = CancellationToken::new();
        Self {
            server,
            _stops: shutdown.clone().drop_guard(),
            shutdown,
            https: OnceCell::new(),
        }
    }

    /// Creates the custom resource definitions of a YAML file, or of all files of a folder that end in `.yaml`, `.yml` or
    /// `.json`, and waits until their resources are served.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
    /// let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crd/data");
    /// let server = orch_api::testkit::TestServer::start().await;
    /// let names = server.load_crds(folder).await;
    /// assert_eq!(names, ["backups.storage.example.com", "databases.storage.example.com"]);
    /// # });
    /// ```
    ///
    /// # Panics
    /// When a file cannot be read, is not a definition, is refused, or its names are taken.
    pub async fn load_crds(&self, path: impl AsRef<Path>) -> Vec<String> {
        let path = path.as_ref();
        let mut files = if path.is_dir() {
            let entries = std::fs::read_dir(path).expect("the folder can be read");
            let paths = entries.map(|entry| entry.expect("the folder can be read").path());
            let is_definition = |path: &PathBuf| {
                let ending = path.extension().and_then(|ending| ending.to_str());
                matches!(ending, Some("yaml" | "yml" | "json"))
            };
            paths.filter(is_definition).collect()
        } else {
            vec![path.to_owned()]
        };
        files.sort();
        let mut names = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file)
                .unwrap_or_else(|error| panic!("{} cannot be read: {error}", file.display()));
            let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text)
                .unwrap_or_else(|error| panic!("{} is not YAML: {error}", file.display()));
            for document in documents.into_iter().filter(|one| !one.is_null()) {
                names.push(self.create_crd(&document, &file).await);
            }
        }
        names
    }

    async fn create_crd(&self, document: &serde_json::Value, file: &Path) -> String {
        let definition: CustomResourceDefinition = serde_json::from_value(document.clone())
            .unwrap_or_else(|error| panic!("{} is not a definition: {error}", file.display()));
        let definitions = Api::<CustomResourceDefinition>::all(self.client());
        let name = definition.metadata.name.clone().unwrap_or_default();
        if let Err(error) = definitions.create(&PostParams::default(), &definition).await {
            panic!("{name} of {} is refused: {error}", file.display());
        }
        // The answer came when the definition had taken effect; what is not established by then is in conflict.
        let created = definitions
            .get(&name)
            .await
            .expect("a definition that was created can be read");
        let conditions = created
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        let established = conditions
            .iter()
            .any(|one| one.type_ == "Established" && one.status == "True");
        assert!(
            established,
            "{name} of {} is not established: {conditions:?}",
            file.display()
        );
        name
    }

    /// The server itself.
    #[must_use]
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// A client of an administrator, in process.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client_as(UserInfo::admin())
    }

    /// A client of any user, in process.
    #[must_use]
    pub fn client_as(&self, user: UserInfo) -> kube::Client {
        self.server.client(user)
    }

    /// Where the server listens for HTTPS on loopback, from the first call on: `https://127.0.0.1:PORT`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn url(&self) -> String {
        format!("https://{}", self.https().await.address)
    }

    /// The certificate, PEM, of the authority that signs the server's certificate and verifies clients'.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn authority_pem(&self) -> String {
        self.https().await.authority.certificate_pem().to_owned()
    }

    /// A client certificate for a user in at most one group.
    ///
    /// # Panics
    /// When no certificate can be made.
    pub async fn credential(&self, user: &str, group: Option<&str>) -> Credential {
        let leaf = Leaf::client(user, group);
        self.https()
            .await
            .authority
            .issue(&leaf)
            .expect("a client certificate can be issued")
    }

    /// A kubeconfig of an administrator, as YAML (which is JSON here), for HTTPS with a client certificate.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn kubeconfig(&self) -> String {
        let identity = self.credential("kubernetes-admin", Some("system:masters")).await;
        let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": self.url().await, "certificate-authority-data": encode(&self.authority_pem().await),
            }}],
            "users": [{"name": "admin", "user": {
                "client-certificate-data": encode(&identity.certificate_pem), "client-key-data": encode(&identity.key_pem),
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": "default"}}],
        })
        .to_string()
    }

    async fn https(&self) -> &Https {
        self.https.get_or_init(|| self.listen()).await
    }

    async fn listen(&self) -> Https {
        let authority = CertificateAuthority::create("orch-test").expect("an authority can be made");
        let leaf = Leaf::server("kube-apiserver", ["localhost", "127.0.0.1"]);
        let identity = authority
            .issue(&leaf)
            .expect("a server certificate can be issued");
        let clients = Some((authority.certificate_pem(), ClientCertificates::Optional));
        let tls =
            pki::server_config(&identity, clients).expect("a TLS configuration of fresh certificates works");
        let listener = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (server, shutdown) = (self.server.clone(), self.shutdown.clone());
        let task = tokio::spawn(async move { server.serve(listener.tls(tls), shutdown).await });
        Https {
            address,
            authority,
            task,
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.server.stop();
    }
}
