//! Authentication: who sent a request.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use orch_core::pki;
use orch_core::serve::Peer;
use orch_core::status::ApiError;

use crate::authn::{Authenticator, Credentials};
use crate::context::Context;
use crate::user::UserInfo;

/// Who a connection's certificate says is there.
pub(super) fn of_peer(peer: &Peer) -> Option<UserInfo> {
    let subject = pki::subject(peer.certificates.first()?).ok()?;
    Some(UserInfo::new(subject.common_name?, subject.organizations))
}

/// Who a request comes from. Nobody known is anonymous; a credential that the server cannot accept is an error.
pub(super) async fn of_request(
    context: &Context,
    user: Option<UserInfo>,
    headers: &HeaderMap,
) -> Result<UserInfo, ApiError> {
    if let Some(user) = user {
        return Ok(user);
    }
    let credentials = Credentials {
        token: bearer(headers),
        headers,
        audiences: &context.issuer.audiences,
    };
    match context.authenticator.authenticate(&credentials).await {
        Ok(Some(found)) => Ok(found.user),
        Ok(None) if headers.contains_key(AUTHORIZATION) => Err(ApiError::unauthorized()),
        Ok(None) if context.settings.anonymous => Ok(UserInfo::anonymous()),
        Ok(None) => Err(ApiError::unauthorized()),
        Err(error) => {
            tracing::debug!(%error, "a credential is not accepted");
            Err(ApiError::unauthorized())
        }
    }
}

/// The token of the `Authorization` header. A header that is there twice says nothing that can be relied on.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(values: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, http::HeaderValue::from_static(value));
        }
        bearer(&headers).map(str::to_owned)
    }

    #[test]
    fn a_bearer_token_is_taken_from_one_header() {
        assert_eq!(token(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(token(&["bearer  abc "]).as_deref(), Some("abc"));
        for none in [
            &["Basic abc"][..],
            &["Bearer"],
            &["Bearer "],
            &["abc"],
            &["Bearer a", "Bearer b"],
            &[],
        ] {
            assert_eq!(token(none), None, "{none:?}");
        }
    }
}
