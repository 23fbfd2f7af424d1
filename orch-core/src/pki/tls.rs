//! TLS configurations, on the ring provider.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{Credential, PkiError};

/// Whether a server asks clients for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientCertificates {
    /// Asked for; who has none connects without. A wrong one is refused.
    Optional,
    /// Who has none is refused.
    Required,
}

/// A server's configuration: its certificate, HTTP/2 and HTTP/1.1, and, with an authority's certificate (PEM, one or more), the
/// verification of client certificates by it.
///
/// # Errors
/// When a certificate or key cannot be used.
pub fn server_config(
    credential: &Credential,
    clients: Option<(&str, ClientCertificates)>,
) -> Result<Arc<ServerConfig>, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some((ca, mode)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider);
            let verifier = match mode {
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
                ClientCertificates::Required => verifier,
            };
            let verifier = verifier
                .build()
                .map_err(|error| PkiError::Parse(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain(credential)?, key(credential)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client's configuration: which authority (PEM, one or more certificates) it trusts, and who it says it is.
/// No protocol is negotiated (ALPN): that depends on the HTTP client above.
///
/// # Errors
/// When a certificate or key cannot be used.
pub fn client_config(ca_pem: &str, identity: Option<&Credential>) -> Result<ClientConfig, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca_pem)?);
    Ok(match identity {
        None => builder.with_no_client_auth(),
        Some(credential) => builder.with_client_auth_cert(chain(credential)?, key(credential)?)?,
    })
}

fn roots(pem: &str) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|error| PkiError::Parse(error.to_string()))?)?;
    }
    match roots.is_empty() {
        true => Err(PkiError::Parse(
            "no certificate in the authority's PEM".to_owned(),
        )),
        false => Ok(roots),
    }
}

fn chain(credential: &Credential) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(credential.certificate_pem.as_bytes()).collect();
    chain.map_err(|error| PkiError::Parse(error.to_string()))
}

fn key(credential: &Credential) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(credential.key_pem.as_bytes())
        .map_err(|error| PkiError::Parse(error.to_string()))
}
