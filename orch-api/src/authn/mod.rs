//! Who sent a request.
//!
//! A client certificate that TLS verified is an identity of itself. Other credentials are shown to a chain of
//! [`Authenticator`]s: those given to the builder, static tokens, and the tokens of service accounts.

mod key;
pub(crate) mod service_account;
mod static_tokens;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;

pub use self::key::{KeyError, SigningKey, VerifyingKey};
pub use self::static_tokens::{StaticTokens, TokenFileError};
use crate::user::UserInfo;

/// What a request shows to say who sent it. It prints without its secrets.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Credentials<'a> {
    /// The token of `Authorization: Bearer TOKEN`, if there is one.
    pub token: Option<&'a str>,
    /// The request's headers; none when somebody asks about a token by TokenReview.
    pub headers: &'a HeaderMap,
    /// Whom the credential has to be meant for, if it says whom it is meant for.
    pub audiences: &'a [String],
}

impl Debug for Credentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("audiences", &self.audiences)
            .finish_non_exhaustive()
    }
}

/// An identity, and for whom the credential was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Who it is.
    pub user: UserInfo,
    /// Those of the wanted audiences that the credential is meant for.
    pub audiences: Vec<String>,
}

/// Why a credential is no identity. The message goes to logs and to those who ask by TokenReview: it must not contain
/// the credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// The credential is of this authenticator's sort, and not valid.
    #[error("{0}")]
    Invalid(String),
    /// It could not be found out.
    #[error("the credential cannot be checked: {0}")]
    Unavailable(String),
}

/// Finds out who sent a request.
///
/// The server asks its authenticators one after the other, for each request that comes without a verified client
/// certificate and without an identity given within the process, and for each TokenReview. The first
/// identity counts. `Ok(None)` means that the request shows nothing that this authenticator knows; an error, that it does
/// and that it is not valid, or could not be checked: the others are asked nevertheless. A request with a
/// credential that nobody accepts is refused with 401; only a request that shows none at all is anonymous.
///
/// An authenticator may be called from many tasks at once, is awaited by the request, and may be dropped at any await. It
/// must not change anything. The group `system:authenticated` is added by the server.
#[async_trait]
pub trait Authenticator: Send + Sync + Debug + 'static {
    /// Looks at a request's credentials.
    ///
    /// # Errors
    /// Why a credential of this authenticator's sort is not accepted.
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Option<Authenticated>, AuthenticationError>;
}

/// Several authenticators, asked in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain(pub(crate) Vec<Arc<dyn Authenticator>>);

#[async_trait]
impl Authenticator for Chain {
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Option<Authenticated>, AuthenticationError> {
        let mut errors = Vec::new();
        for authenticator in &self.0 {
            match authenticator.authenticate(credentials).await {
                Ok(None) => (),
                Ok(Some(mut found)) => {
                    found.user = found.user.authenticated();
                    return Ok(Some(found));
                }
                Err(error) => errors.push(error),
            }
        }
        match errors.as_slice() {
            [] if credentials.token.is_some() => {
                Err(AuthenticationError::Invalid("invalid bearer token".to_owned()))
            }
            [] => Ok(None),
            [one] => Err(one.clone()),
            several => {
                let texts: Vec<String> = several.iter().map(ToString::to_string).collect();
                Err(AuthenticationError::Invalid(format!("[{}]", texts.join(", "))))
            }
        }
    }
}

/// Those of the wanted audiences that are there too.
pub(crate) fn common_audiences(wanted: &[String], given: &[String]) -> Vec<String> {
    wanted.iter().filter(|one| given.contains(one)).cloned().collect()
}
