//! The cluster's certificates and the administrator's kubeconfig.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orch_core::pki::{CertificateAuthority, Credential, Leaf};

/// Who signs, and the certificates of those who need one: what runs in this process needs none to talk to the API
/// server.
pub(crate) struct Identities {
    pub(crate) authority: CertificateAuthority,
    pub(crate) api_server: Credential,
    pub(crate) admin: Credential,
    /// The node agent's server certificate.
    pub(crate) node: Credential,
    /// By which the API server asks the node agent for logs.
    pub(crate) kubelet_client: Credential,
}

impl Identities {
    /// Reads them from a folder; makes what is missing, about to expire, or not valid for these names.
    pub(crate) fn load_or_issue(
        folder: &Path,
        api_server_addresses: &[IpAddr],
        node_name: &str,
        node_address: IpAddr,
    ) -> anyhow::Result<Self> {
        let authority = CertificateAuthority::load_or_create(folder, "ca", "kubernetes")?;
        let mut names: Vec<String> = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ]
        .map(str::to_owned)
        .to_vec();
        names.push("kubernetes.default.svc.cluster.local".to_owned());
        names.extend(api_server_addresses.iter().map(IpAddr::to_string));
        let issue = |name: &str, leaf: &Leaf| authority.load_or_issue(folder, name, leaf);
        Ok(Self {
            api_server: issue("apiserver", &Leaf::server("kube-apiserver", names))?,
            admin: issue("admin", &Leaf::client("kubernetes-admin", Some("system:masters")))?,
            node: issue(
                "kubelet",
                &Leaf::server(
                    &format!("system:node:{node_name}"),
                    [
                        node_name.to_owned(),
                        node_address.to_string(),
                        "127.0.0.1".to_owned(),
                    ],
                ),
            )?,
            kubelet_client: issue(
                "apiserver-kubelet-client",
                &Leaf::client("kube-apiserver-kubelet-client", Some("system:masters")),
            )?,
            authority,
        })
    }

    /// Writes the administrator's kubeconfig: readable by its owner only, complete or not at all.
    pub(crate) fn write_kubeconfig(&self, path: &Path, server: SocketAddr) -> anyhow::Result<()> {
        let encode = |text: &str| STANDARD.encode(text);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: orch\nclusters:\n- name: orch\n  cluster:\n    server: \
             https://{server}\n    certificate-authority-data: {}\nusers:\n- name: kubernetes-admin\n  user:\n    \
             client-certificate-data: {}\n    client-key-data: {}\ncontexts:\n- name: orch\n  context:\n    cluster: \
             orch\n    user: kubernetes-admin\n",
            encode(self.authority.certificate_pem()),
            encode(&self.admin.certificate_pem),
            encode(&self.admin.key_pem),
        );
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let unfinished = path.with_extension("new");
        let written = || -> std::io::Result<()> {
            // A file that was left behind may have another mode.
            match fs::remove_file(&unfinished) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file: File = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&unfinished)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&unfinished, path)
        };
        written().with_context(|| format!("cannot write {}", path.display()))
    }
}
