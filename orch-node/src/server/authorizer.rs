//! Who may use the agent's server.

use http::{Method, StatusCode};
use orch_core::pki;
use orch_core::serve::Peer;

/// Decides on each request to the agent's HTTPS server, save `/healthz`. Implemented for closures.
pub trait Authorizer: Send + Sync + std::fmt::Debug + 'static {
    /// Lets the request pass, or says why not.
    ///
    /// # Errors
    /// The refusal that the client gets.
    fn authorize(&self, peer: &Peer, method: &Method, path: &str) -> Result<(), Refusal>;
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The client did not say who it is (401).
    #[error("Unauthorized")]
    Unauthorized,
    /// The client may not do this (403).
    #[error("Forbidden (user={user}, verb={verb}, resource=nodes, subresource=proxy)")]
    Forbidden {
        /// The user of the client's certificate.
        user: String,
        /// What it tried.
        verb: String,
    },
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
        }
    }
}

/// Lets those pass whose certificate is of the group `system:masters`, as the API server's is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemMasters;

impl Authorizer for SystemMasters {
    fn authorize(&self, peer: &Peer, method: &Method, _path: &str) -> Result<(), Refusal> {
        let certificate = peer.certificates.first().ok_or(Refusal::Unauthorized)?;
        let subject = pki::subject(certificate).map_err(|_| Refusal::Unauthorized)?;
        if subject
            .organizations
            .iter()
            .any(|group| group == "system:masters")
        {
            return Ok(());
        }
        let verb = if *method == Method::GET { "get" } else { "create" };
        Err(Refusal::Forbidden {
            user: subject.common_name.unwrap_or_default(),
            verb: verb.into(),
        })
    }
}
