use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use super::EtcdStore;
use super::members::Members;
use crate::{Limits, Store, StoreError};

/// What etcd takes for a request, less than half of which the four times that a key is named in a transaction and the
/// rest of its frame can be: 32 KiB.
const MAX_VALUE: usize = 3 * 512 * 1024 - 32 * 1024;

/// How often an open connection is probed. etcd refuses clients that do it more often than every five seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How to reach etcd. Made by [`EtcdStore::options`].
#[derive(Clone)]
#[must_use = "options do nothing until `connect`"]
pub struct EtcdOptions {
    pub(super) endpoints: Vec<String>,
    user: Option<(String, String)>,
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    server_name: Option<String>,
    pub(super) limits: Limits,
    pub(super) request_timeout: Duration,
    pub(super) probe_key: Bytes,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            user: None,
            ca: None,
            identity: None,
            server_name: None,
            limits: Limits::default().max_value(MAX_VALUE),
            request_timeout: Duration::from_secs(10),
            probe_key: Bytes::from_static(b"/registry/health"),
        }
    }
}

impl EtcdOptions {
    /// Adds a member's client URL, such as `https://10.0.0.1:2379`. All of one cluster should be named: calls go to one
    /// member and move on to the next when it fails.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoints.push(url.into());
        self
    }

    /// The user and password to authenticate with. Default: none.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// The certificates (PEM) of the authorities that servers must be certified by. Needed for `https`; no other authority is
    /// trusted.
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// The certificate and private key (PEM) that this client shows to servers: mutual TLS. Default: none.
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The name that servers' certificates must be for. Default: the host in the URL.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// How large keys and values may be. The default leaves room in etcd's own limit of 1.5 MiB for a request; raise both
    /// together (`--max-request-bytes`).
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long a call may take, with all its attempts at all members. Default 10 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// A key that is read to learn the current revision; it need not exist, but the user must be allowed to read it. Default
    /// `/registry/health`, as kube-apiserver has it.
    pub fn probe_key(mut self, key: impl Into<Bytes>) -> Self {
        self.probe_key = key.into();
        self
    }

    /// Connects, and makes sure that a member answers.
    ///
    /// # Errors
    /// [`StoreError::Denied`] for wrong credentials and options that contradict each other, [`StoreError::Unavailable`] when no
    /// member answers in time, with what each said.
    pub async fn connect(self) -> Result<EtcdStore, StoreError> {
        let store = EtcdStore::new(Arc::new(Members::new(&self)?), &self);
        store.current_revision().await?;
        Ok(store)
    }

    pub(super) fn connection(&self) -> Result<ConnectOptions, StoreError> {
        let mut options = ConnectOptions::new()
            .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE_TIMEOUT)
            // etcd takes probes of a connection without calls for an attack.
            .with_keep_alive_while_idle(false)
            .with_connect_timeout(self.request_timeout / 4)
            .with_require_leader(true);
        if let Some((name, password)) = &self.user {
            options = options.with_user(name, password).with_auto_token_refresh(true);
        }
        let is_secure = |url: &String| url.starts_with("https://");
        match (&self.ca, self.endpoints.iter().any(is_secure)) {
            (None, true) => Err(contradiction(
                "an https endpoint needs the certificate of its authority",
            )),
            (Some(_), false) => Err(contradiction("certificates are given, but no endpoint is https")),
            (None, false) if self.identity.is_some() => Err(contradiction(
                "a client certificate is given, but no endpoint is https",
            )),
            (None, false) => Ok(options),
            (Some(_), true) if !self.endpoints.iter().all(is_secure) => {
                Err(contradiction("some endpoints are https and some are not"))
            }
            (Some(ca), true) => Ok(options.with_tls(self.tls(ca))),
        }
    }

    fn tls(&self, ca: &[u8]) -> TlsOptions {
        let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
        if let Some((certificate, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        tls
    }
}

fn contradiction(reason: &str) -> StoreError {
    StoreError::Denied {
        reason: reason.to_owned(),
    }
}

/// Shows neither password nor key.
impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("has_identity", &self.identity.is_some())
            .field("limits", &self.limits)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let options = EtcdStore::options()
            .endpoint("https://127.0.0.1:2379")
            .user("root", "hunter2")
            .identity("CERTIFICATE", "PRIVATE");
        let shown = format!("{options:?}");
        assert!(shown.contains("root"));
        assert!(
            !shown.contains("hunter2") && !shown.contains("PRIVATE"),
            "{shown}"
        );
    }

    #[tokio::test]
    async fn options_that_contradict_each_other_are_refused() {
        let secure = || EtcdStore::options().endpoint("https://127.0.0.1:1");
        for options in [
            EtcdStore::options(),
            secure(),
            secure().ca("x").endpoint("http://127.0.0.1:1"),
            EtcdStore::options().endpoint("http://127.0.0.1:1").ca("x"),
            EtcdStore::options()
                .endpoint("http://127.0.0.1:1")
                .identity("x", "y"),
        ] {
            let shown = format!("{options:?}");
            let error = options.connect().await.unwrap_err();
            assert!(matches!(error, StoreError::Denied { .. }), "{shown}: {error}");
        }
    }
}
