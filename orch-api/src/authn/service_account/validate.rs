//! Whether a token is valid: signed by a known key, meant for this server, in its time, and bound to what still exists.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use orch_core::status::ApiError;
use serde::Deserialize;

use super::claims::{Claims, Reference};
use super::{Issuer, USER_PREFIX};
use crate::authn::{Authenticated, AuthenticationError, Authenticator, Credentials, common_audiences};
use crate::registry::{Resource, Resources};
use crate::user::UserInfo;

/// How long a token outlives the mark of deletion on what it is bound to, as upstream.
const DELETION_LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// The authenticator of service accounts' tokens. What tokens are bound to is looked up in the watch caches.
#[derive(Debug)]
pub(crate) struct ServiceAccountTokens {
    issuer: Arc<Issuer>,
    accounts: Option<Arc<Resource>>,
    pods: Option<Arc<Resource>>,
    secrets: Option<Arc<Resource>>,
    nodes: Option<Arc<Resource>>,
}

#[derive(Deserialize)]
struct Header<'a> {
    alg: &'a str,
    #[serde(default)]
    kid: Option<&'a str>,
}

#[derive(Deserialize)]
struct Slim {
    metadata: SlimMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimMetadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    deletion_timestamp: Option<Timestamp>,
}

fn invalid(why: impl Into<String>) -> AuthenticationError {
    AuthenticationError::Invalid(why.into())
}

fn unavailable(error: &ApiError) -> AuthenticationError {
    AuthenticationError::Unavailable(error.message().to_owned())
}

/// The parts of a token: what is signed, and the decoded header, claims and signature.
struct Parts<'a> {
    signed: &'a [u8],
    header: Vec<u8>,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        Some(Self {
            signed: signed.as_bytes(),
            header: decode(header)?,
            claims: decode(claims)?,
            signature: decode(signature)?,
        })
    }
}

#[derive(Deserialize)]
struct OnlyIssuer {
    #[serde(default)]
    iss: String,
}

impl ServiceAccountTokens {
    pub(crate) fn new(issuer: Arc<Issuer>, resources: &Resources) -> Self {
        let core = |plural| resources.fixed("", "v1", plural).cloned();
        Self {
            issuer,
            accounts: core("serviceaccounts"),
            pods: core("pods"),
            secrets: core("secrets"),
            nodes: core("nodes"),
        }
    }

    /// The claims of a token that this server has signed; `None` for the tokens of others.
    fn signed(&self, token: &str) -> Result<Option<Claims>, AuthenticationError> {
        let Some(parts) = Parts::of(token) else {
            return Ok(None);
        };
        let Ok(OnlyIssuer { iss }) = serde_json::from_slice(&parts.claims) else {
            return Ok(None);
        };
        if iss != self.issuer.name {
            return Ok(None);
        }
        let bad = || invalid("service account token has an invalid signature");
        let header: Header<'_> = serde_json::from_slice(&parts.header).map_err(|_| bad())?;
        // The key says by which algorithm it signs; what the token says has to agree, so `none` never does.
        let mut keys = self.issuer.verifying.iter().filter(|key| {
            key.algorithm() == header.alg && header.kid.is_none_or(|wanted| wanted == key.id())
        });
        if !keys.any(|key| key.verifies(parts.signed, &parts.signature)) {
            return Err(bad());
        }
        serde_json::from_slice(&parts.claims)
            .map(Some)
            .map_err(|_| invalid("service account token has unusable claims"))
    }

    /// Whether everything exists that the token is bound to.
    async fn bound(&self, claims: &Claims) -> Result<(), AuthenticationError> {
        let bound = &claims.kubernetes;
        let (namespace, account) = (&bound.namespace, &bound.serviceaccount);
        if claims.sub != format!("{USER_PREFIX}{namespace}:{}", account.name) {
            return Err(invalid("service account token has unusable claims"));
        }
        self.exists(
            self.accounts.as_ref(),
            namespace,
            account,
            "service account UID",
            "claim",
        )
        .await?;
        let claim = |what: &str| format!("service account {what} ref claim");
        if let Some(pod) = &bound.pod {
            self.exists(self.pods.as_ref(), namespace, pod, "pod UID", &claim("pod"))
                .await?;
        }
        if let Some(secret) = &bound.secret {
            self.exists(
                self.secrets.as_ref(),
                namespace,
                secret,
                "secret UID",
                &claim("secret"),
            )
            .await?;
        }
        match (&bound.pod, &bound.node) {
            // Of a pod's token the node only says where the pod was.
            (None, Some(node)) => {
                self.exists(self.nodes.as_ref(), "", node, "node UID", &claim("node"))
                    .await
            }
            _ => Ok(()),
        }
    }

    async fn exists(
        &self,
        resource: Option<&Arc<Resource>>,
        namespace: &str,
        wanted: &Reference,
        what: &str,
        claim: &str,
    ) -> Result<(), AuthenticationError> {
        let gone = || invalid("service account token has been invalidated");
        let resource = resource.ok_or_else(gone)?;
        let found = look_up(resource, namespace, wanted)
            .await
            .map_err(|error| unavailable(&error))?;
        let found = found.ok_or_else(gone)?;
        if found.uid != wanted.uid {
            return Err(invalid(format!(
                "{what} ({}) does not match {claim} ({})",
                found.uid, wanted.uid
            )));
        }
        match found.deletion_timestamp {
            Some(time) if time + DELETION_LEEWAY < Timestamp::now() => Err(gone()),
            _ => Ok(()),
        }
    }
}

/// From the cache; an object that it does not have, or has under another uid, may be newer than the cache.
async fn look_up(
    resource: &Resource,
    namespace: &str,
    wanted: &Reference,
) -> Result<Option<SlimMetadata>, ApiError> {
    let key = resource.info().key(namespace, &wanted.name);
    let read = |snapshot: &crate::cache::snapshot::Snapshot| -> Result<Option<SlimMetadata>, ApiError> {
        let Some(entry) = snapshot.get(key.as_bytes()) else {
            return Ok(None);
        };
        let slim: Slim = serde_json::from_slice(&entry.json).map_err(ApiError::internal)?;
        Ok(Some(slim.metadata))
    };
    match read(&*resource.cache.any().await?)? {
        Some(found) if found.uid == wanted.uid => Ok(Some(found)),
        _ => read(&*resource.cache.fresh().await?),
    }
}

fn in_time(claims: &Claims, now: i64) -> Result<(), AuthenticationError> {
    if now > claims.exp {
        return Err(invalid("service account token has expired"));
    }
    if now < claims.nbf || now < claims.iat {
        return Err(invalid("service account token is not valid yet"));
    }
    Ok(())
}

/// The user whom a valid token is of.
fn user(claims: Claims) -> UserInfo {
    const PREFIX: &str = "authentication.kubernetes.io/";
    let bound = claims.kubernetes;
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{}", bound.namespace),
    ];
    let mut user = UserInfo::new(claims.sub, groups);
    user.uid = bound.serviceaccount.uid;
    let mut extra = |key: &str, value: String| {
        if !value.is_empty() {
            user.extra.insert(format!("{PREFIX}{key}"), vec![value]);
        }
    };
    if !claims.jti.is_empty() {
        extra("credential-id", format!("JTI={}", claims.jti));
    }
    if let Some(pod) = bound.pod {
        extra("pod-name", pod.name);
        extra("pod-uid", pod.uid);
    }
    if let Some(node) = bound.node {
        extra("node-name", node.name);
        extra("node-uid", node.uid);
    }
    user
}

#[async_trait]
impl Authenticator for ServiceAccountTokens {
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Option<Authenticated>, AuthenticationError> {
        let Some(token) = credentials.token else {
            return Ok(None);
        };
        let Some(claims) = self.signed(token)? else {
            return Ok(None);
        };
        let audiences = common_audiences(credentials.audiences, claims.aud.as_slice());
        if audiences.is_empty() {
            return Err(invalid(format!(
                "token audiences {:?} is invalid for the target audiences {:?}",
                claims.aud.as_slice(),
                credentials.audiences
            )));
        }
        in_time(&claims, Timestamp::now().as_second())?;
        self.bound(&claims).await?;
        let user = user(claims);
        Ok(Some(Authenticated { user, audiences }))
    }
}
