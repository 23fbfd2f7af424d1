//! Tokens of service accounts: JSON Web Tokens with upstream's claims, made by TokenRequest and valid as long as
//! everything that they are bound to exists.

pub(crate) mod claims;
#[cfg(test)]
mod tests;
mod validate;

use std::fmt;

use serde_json::{Value, json};

use self::claims::Claims;
pub(crate) use self::validate::ServiceAccountTokens;
use super::{KeyError, SigningKey, VerifyingKey};

/// Upstream's usual issuer, as kubeadm sets it.
pub(crate) const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Prefix of the user names of service accounts.
pub(crate) const USER_PREFIX: &str = "system:serviceaccount:";

/// Who issues tokens, with which keys, and for whom.
pub(crate) struct Issuer {
    /// What the claim `iss` says.
    pub(crate) name: String,
    /// Where the keys can be fetched, as OpenID clients are told.
    pub(crate) jwks_uri: String,
    /// Whom tokens are meant for when a request names nobody, and what this server takes itself for.
    pub(crate) audiences: Vec<String>,
    key: SigningKey,
    /// The own public key first, then older ones.
    verifying: Vec<VerifyingKey>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    pub(crate) fn new(
        name: String,
        jwks_uri: Option<String>,
        audiences: Vec<String>,
        key: SigningKey,
        older: Vec<VerifyingKey>,
    ) -> Self {
        let verifying = std::iter::once(key.verifying_key()).chain(older).collect();
        Self {
            jwks_uri: jwks_uri.unwrap_or_else(|| format!("{}/openid/v1/jwks", name.trim_end_matches('/'))),
            audiences: if audiences.is_empty() {
                vec![name.clone()]
            } else {
                audiences
            },
            name,
            key,
            verifying,
        }
    }

    /// A token of these claims.
    pub(crate) fn issue(&self, claims: &Claims) -> Result<String, KeyError> {
        let text = serde_json::to_vec(claims).map_err(|_| KeyError::Random)?;
        self.key.sign(&text)
    }

    /// The answer of `/.well-known/openid-configuration`.
    pub(crate) fn openid_configuration(&self) -> Value {
        let mut algorithms: Vec<&str> = self.verifying.iter().map(VerifyingKey::algorithm).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        json!({
            "issuer": self.name,
            "jwks_uri": self.jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }

    /// The answer of `/openid/v1/jwks`.
    pub(crate) fn key_set(&self) -> Value {
        let keys: Vec<&Value> = self.verifying.iter().map(VerifyingKey::jwk).collect();
        json!({"keys": keys})
    }
}
