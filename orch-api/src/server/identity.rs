//! Authentication: who sent a request.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use orch_core::pki;
use orch_core::serve::Peer;
use orch_core::status::ApiError;

use crate::user::UserInfo;

/// Who a connection's certificate says is there.
pub(super) fn of_peer(peer: &Peer) -> Option<UserInfo> {
    let subject = pki::subject(peer.certificates.first()?).ok()?;
    Some(UserInfo::new(subject.common_name?, subject.organizations))
}

/// Who a request comes from. Nobody known is anonymous; a credential that the server cannot accept is an error.
pub(super) fn of_request(user: Option<UserInfo>, headers: &HeaderMap) -> Result<UserInfo, ApiError> {
    match user {
        Some(user) => Ok(user),
        None if headers.contains_key(AUTHORIZATION) => Err(ApiError::unauthorized()),
        None => Ok(UserInfo::anonymous()),
    }
}
