//! A cluster's certificates: an authority kept in a directory, the server and client certificates it issues, and the
//! TLS configurations made from them.
//!
//! ```
//! use orch_core::pki::{self, CertificateAuthority, ClientCertificates, Leaf};
//!
//! # fn main() -> Result<(), pki::PkiError> {
//! let ca = CertificateAuthority::create("my-cluster")?;
//! let server = ca.issue(&Leaf::server("api", ["localhost", "127.0.0.1"]))?;
//! let admin = ca.issue(&Leaf::client("kubernetes-admin", Some("system:masters")))?;
//! let config = pki::server_config(&server, Some((ca.certificate_pem(), ClientCertificates::Optional)))?;
//! # let _ = (admin, config);
//! # Ok(())
//! # }
//! ```

mod authority;
mod file;
mod inspect;
mod tls;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use authority::CertificateAuthority;
pub use inspect::{Subject, subject};
pub use tls::{ClientCertificates, client_config, server_config};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What can go wrong with certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The authority's certificate is there and its key is not, or they do not belong together.
    #[error("{} does not go with its key: restore the key, or remove both to begin a new authority", path.display())]
    KeyMissing {
        /// The certificate.
        path: PathBuf,
    },
    /// A key or certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A key or certificate could not be understood.
    #[error("not a certificate or key: {0}")]
    Parse(String),
    /// TLS refused a key or certificate.
    #[error("unusable for TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// What a certificate is to say.
#[derive(Clone, Debug)]
#[must_use]
pub struct Leaf {
    common_name: String,
    organization: Option<String>,
    names: Vec<String>,
    server: bool,
    client: bool,
    lifetime: Duration,
}

impl Leaf {
    /// A server's certificate, valid for these DNS names and IP addresses.
    pub fn server<S: Into<String>>(common_name: &str, names: impl IntoIterator<Item = S>) -> Self {
        let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
        names.sort();
        names.dedup();
        Leaf {
            common_name: common_name.to_owned(),
            organization: None,
            names,
            server: true,
            client: false,
            lifetime: 365 * DAY,
        }
    }

    /// A client's certificate: Kubernetes reads the common name as the user and the organization as a group.
    pub fn client(common_name: &str, organization: Option<&str>) -> Self {
        Leaf {
            organization: organization.map(str::to_owned),
            server: false,
            client: true,
            ..Leaf::server(common_name, [""; 0])
        }
    }

    /// Also usable as a client certificate, with this organization.
    pub fn and_client(mut self, organization: Option<&str>) -> Self {
        self.client = true;
        self.organization = organization.map(str::to_owned);
        self
    }

    /// How long it is valid. Default one year. It is renewed when a fifth of that is left.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }
}

/// A certificate and its private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PEM (PKCS #8).
    pub key_pem: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_authority_survives_in_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = CertificateAuthority::load_or_create(dir.path(), "ca", "test").unwrap();
        let second = CertificateAuthority::load_or_create(dir.path(), "ca", "test").unwrap();
        assert_eq!(first.certificate_pem(), second.certificate_pem());
        let mode = std::fs::metadata(dir.path().join("ca.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        CertificateAuthority::load_or_create(dir.path(), "ca", "test").unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        let error = CertificateAuthority::load_or_create(dir.path(), "ca", "test").unwrap_err();
        assert!(matches!(error, PkiError::KeyMissing { .. }), "{error}");
    }

    #[test]
    fn a_key_without_certificate_is_a_creation_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        CertificateAuthority::load_or_create(dir.path(), "ca", "test").unwrap();
        std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
        CertificateAuthority::load_or_create(dir.path(), "ca", "test").unwrap();
    }

    #[test]
    fn a_leaf_is_kept_until_it_must_be_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::create("test").unwrap();
        let leaf = Leaf::server("api", ["localhost", "127.0.0.1"]);
        let first = ca.load_or_issue(dir.path(), "api", &leaf).unwrap();
        assert_eq!(ca.load_or_issue(dir.path(), "api", &leaf).unwrap(), first);

        let more = Leaf::server("api", ["localhost", "127.0.0.1", "10.0.0.1"]);
        let renewed = ca.load_or_issue(dir.path(), "api", &more).unwrap();
        assert_ne!(renewed, first, "other names");

        let other = CertificateAuthority::create("test").unwrap();
        assert_ne!(
            other.load_or_issue(dir.path(), "api", &more).unwrap(),
            renewed,
            "another authority"
        );

        let brief = more.clone().lifetime(Duration::from_secs(0));
        let expired = ca.load_or_issue(dir.path(), "brief", &brief).unwrap();
        assert_ne!(
            ca.load_or_issue(dir.path(), "brief", &brief).unwrap(),
            expired,
            "expired"
        );
    }

    #[test]
    fn a_client_certificate_names_user_and_group() {
        let ca = CertificateAuthority::create("test").unwrap();
        let credential = ca
            .issue(&Leaf::client("system:node:n1", Some("system:nodes")))
            .unwrap();
        let der = inspect::certificate_der(&credential.certificate_pem).unwrap();
        let subject = subject(&der).unwrap();
        assert_eq!(subject.common_name.as_deref(), Some("system:node:n1"));
        assert_eq!(subject.organizations, ["system:nodes"]);
    }

    #[test]
    fn keys_are_not_printed() {
        let ca = CertificateAuthority::create("test").unwrap();
        let credential = ca.issue(&Leaf::client("a", None)).unwrap();
        assert!(!format!("{credential:?}{ca:?}").contains("PRIVATE"));
    }
}
