//! Tokens of service accounts on request, as `kubectl create token` and node agents ask for them.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use orch_core::field::{ErrorList, FieldError, Path, quote};
use orch_core::status::{ApiError, GroupKind, GroupResource};

use super::not_implemented;
use crate::admission::Operation;
use crate::authn::service_account::USER_PREFIX;
use crate::authn::service_account::claims::{Audience, Claims, Kubernetes, Reference};
use crate::object::Object;
use crate::registry::live;
use crate::registry::metadata::now;
use crate::registry::write::{Outcome, Write};

/// Upstream's default, in seconds.
const DEFAULT_EXPIRATION: i64 = 3600;
const MIN_EXPIRATION: i64 = 600;
const MAX_EXPIRATION: i64 = 1 << 32;
/// What node agents ask for on behalf of pods whose programs may not read a new token in time. Such a token lives for a
/// year, and says from when on its use should be warned of; both as upstream.
const EXTENDED: i64 = 3607;
const EXTENSION: i64 = 365 * 24 * 3600;

pub(crate) fn read(body: &[u8], name: &str) -> Result<TokenRequest, ApiError> {
    let mut request: TokenRequest = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!(
            "TokenRequest in version \"v1\" cannot be handled as a TokenRequest: {error}"
        ))
    })?;
    match request.metadata.name.as_deref().unwrap_or_default() {
        "" => request.metadata.name = Some(name.to_owned()),
        own if own == name => (),
        own => {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({own}) does not match the name on the URL ({name})"
            )));
        }
    }
    let spec = request.spec.get_or_insert_default();
    spec.expiration_seconds.get_or_insert(DEFAULT_EXPIRATION);
    if spec.attestations.as_ref().is_some_and(|some| !some.is_empty()) {
        return Err(not_implemented("a token with attestations"));
    }
    validate(&request)?;
    Ok(request)
}

fn validate(request: &TokenRequest) -> Result<(), ApiError> {
    let path = Path::new("spec").child("expirationSeconds");
    let seconds = seconds(request);
    let why = match seconds {
        ..MIN_EXPIRATION => "may not specify a duration less than 10 minutes",
        MIN_EXPIRATION..=MAX_EXPIRATION => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let errors = ErrorList::from(FieldError::invalid(&path, seconds, why));
    let kind = GroupKind::new("authentication.k8s.io", "TokenRequest");
    let name = request.metadata.name.as_deref().unwrap_or_default();
    Err(ApiError::invalid(&kind, name, &errors))
}

fn seconds(request: &TokenRequest) -> i64 {
    let wanted = request.spec.as_ref().and_then(|spec| spec.expiration_seconds);
    wanted.unwrap_or(DEFAULT_EXPIRATION)
}

/// What a token is bound to.
#[derive(Debug, Default)]
struct Bound {
    pod: Option<Reference>,
    secret: Option<Reference>,
    node: Option<Reference>,
}

fn reference(metadata: &ObjectMeta) -> Reference {
    Reference {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
    }
}

impl Write<'_> {
    /// Makes a token of the service account `name`.
    pub(crate) async fn issue_token(
        &self,
        name: &str,
        mut request: TokenRequest,
    ) -> Result<Outcome, ApiError> {
        let account = self.account(name, &request).await?;
        request.metadata.namespace = Some(self.namespace.to_owned());
        request.metadata.creation_timestamp = Some(now());
        self.admit(Operation::Create, &mut request, None).await?;
        validate(&request)?;
        self.admit_finished(Operation::Create, name, Some(&request), None)
            .await?;
        let issuer = &self.context.issuer;
        let spec = request.spec.get_or_insert_default();
        if spec.audiences.as_deref().unwrap_or_default().is_empty() {
            spec.audiences = Some(issuer.audiences.clone());
        }
        let bound = match &spec.bound_object_ref {
            Some(wanted) => self.bind_token(name, wanted).await?,
            None => Bound::default(),
        };
        let (claims, expires) = claims(
            &issuer.name,
            &issuer.audiences,
            &account,
            self.namespace,
            bound,
            &request,
        );
        request.status = Some(TokenRequestStatus {
            token: Some(issuer.issue(&claims).map_err(ApiError::internal)?),
            expiration_timestamp: Some(Time(expires)),
        });
        Ok(Outcome {
            code: StatusCode::CREATED,
            json: serde_json::to_vec(&request).map_err(ApiError::internal)?.into(),
            warnings: Vec::new(),
        })
    }

    async fn account(&self, name: &str, request: &TokenRequest) -> Result<Reference, ApiError> {
        let live = live::load(self.context, self.resource, self.namespace, name).await?;
        let live = live.ok_or_else(|| ApiError::not_found(&self.resource.group_resource, name))?;
        let account = live
            .object
            .downcast_ref::<ServiceAccount>()
            .ok_or_else(ApiError::unknown_resource)?;
        let found = reference(&account.metadata);
        match request.metadata.uid.as_deref().filter(|uid| !uid.is_empty()) {
            Some(uid) if uid != found.uid => {
                let why = format!(
                    "the UID in the token request ({uid}) does not match the UID of the service account ({})",
                    found.uid
                );
                Err(ApiError::conflict(&self.resource.group_resource, name, why))
            }
            _ => Ok(found),
        }
    }

    /// Finds the object that the token is to be bound to.
    async fn bind_token(&self, account: &str, wanted: &BoundObjectReference) -> Result<Bound, ApiError> {
        let name = wanted.name.as_deref().unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (version, kind) = (text(&wanted.api_version), text(&wanted.kind));
        let mut bound = Bound::default();
        let found = match (version.as_str(), kind.as_str()) {
            ("v1", "Pod") => {
                let pod = self.referenced("pods", self.namespace, name).await?;
                bound.node = self.node_of(account, &*pod).await?;
                bound.pod.insert(reference(pod.metadata()))
            }
            ("v1", "Secret") => {
                let secret = self.referenced("secrets", self.namespace, name).await?;
                bound.secret.insert(reference(secret.metadata()))
            }
            ("v1", "Node") => {
                let node = self.referenced("nodes", "", name).await?;
                bound.node.insert(reference(node.metadata()))
            }
            _ => {
                let (group, version) = version.split_once('/').unwrap_or(("", &version));
                return Err(ApiError::bad_request(format!(
                    "cannot bind token to object of type {group}/{version}, Kind={kind}"
                )));
            }
        };
        match wanted.uid.as_deref().filter(|uid| !uid.is_empty()) {
            Some(uid) if uid != found.uid => {
                let why = format!(
                    "the UID in the bound object reference ({uid}) does not match the UID in record. The object might \
                     have been deleted and then recreated"
                );
                Err(ApiError::conflict(&GroupResource::new("", kind), name, why))
            }
            _ => Ok(bound),
        }
    }

    async fn referenced(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Box<dyn Object>, ApiError> {
        let resource = self.context.core(plural).ok_or_else(ApiError::unknown_resource)?;
        let live = live::load(self.context, resource, namespace, name).await?;
        let live = live.ok_or_else(|| ApiError::not_found(&resource.group_resource, name))?;
        Ok(live.object)
    }

    /// The node of a pod which runs as that account.
    async fn node_of(&self, account: &str, pod: &dyn Object) -> Result<Option<Reference>, ApiError> {
        let spec = pod.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref());
        let runs_as = spec.and_then(|spec| spec.service_account_name.as_deref());
        if runs_as != Some(account) {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                quote(account)
            )));
        }
        let name = spec
            .and_then(|spec| spec.node_name.clone())
            .filter(|name| !name.is_empty());
        let Some(name) = name else { return Ok(None) };
        match self.referenced("nodes", "", &name).await {
            Ok(node) => Ok(Some(reference(node.metadata()))),
            Err(error) if error.is_not_found() => Ok(Some(Reference {
                name,
                uid: String::new(),
            })),
            Err(error) => Err(error),
        }
    }
}

/// The claims, and when the client is told that they expire.
fn claims(
    issuer: &str,
    own_audiences: &[String],
    account: &Reference,
    namespace: &str,
    bound: Bound,
    request: &TokenRequest,
) -> (Claims, Timestamp) {
    let seconds = seconds(request);
    let audiences = request.spec.as_ref().and_then(|spec| spec.audiences.as_deref());
    let audiences = audiences.unwrap_or_default();
    let for_this_server = audiences.iter().all(|one| own_audiences.contains(one));
    let extended = bound.pod.is_some() && seconds == EXTENDED && for_this_server;
    let now = Timestamp::now();
    let after = |seconds: i64| {
        now.checked_add(SignedDuration::from_secs(seconds))
            .unwrap_or(Timestamp::MAX)
    };
    let now = now.as_second();
    let claims = Claims {
        aud: Audience::Several(audiences.to_vec()),
        exp: now + if extended { EXTENSION } else { seconds },
        iat: now,
        iss: issuer.to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        kubernetes: Kubernetes {
            namespace: namespace.to_owned(),
            node: bound.node,
            pod: bound.pod,
            secret: bound.secret,
            serviceaccount: account.clone(),
            warnafter: extended.then_some(now + seconds),
        },
        nbf: now,
        sub: format!("{USER_PREFIX}{namespace}:{}", account.name),
    };
    (claims, after(seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(seconds: Option<i64>) -> Result<TokenRequest, ApiError> {
        let body = json!({"spec": {"audiences": ["api"], "expirationSeconds": seconds}});
        read(body.to_string().as_bytes(), "a")
    }

    #[test]
    fn ten_minutes_are_the_least_and_an_hour_is_usual() {
        assert_eq!(seconds(&request(None).unwrap()), 3600);
        assert!(request(Some(600)).is_ok());
        assert_eq!(
            request(Some(599)).unwrap_err().message(),
            "TokenRequest.authentication.k8s.io \"a\" is invalid: spec.expirationSeconds: Invalid value: 599: may not \
             specify a duration less than 10 minutes"
        );
        assert!(request(Some((1 << 32) + 1)).is_err());
    }

    #[test]
    fn a_pods_usual_token_lives_on_and_says_from_when_to_warn() {
        let pod = || Bound {
            pod: Some(Reference::default()),
            ..Bound::default()
        };
        let made = |bound, seconds: i64, own: &str| {
            let request = request(Some(seconds)).unwrap();
            let own = [own.to_owned()];
            claims("i", &own, &Reference::default(), "n", bound, &request).0
        };
        let extended = made(pod(), EXTENDED, "api");
        assert_eq!(extended.exp - extended.iat, EXTENSION);
        assert_eq!(extended.kubernetes.warnafter, Some(extended.iat + EXTENDED));
        for plain in [
            made(pod(), 3600, "api"),
            made(Bound::default(), EXTENDED, "api"),
            made(pod(), EXTENDED, "other"),
        ] {
            assert!(plain.exp - plain.iat <= EXTENDED);
            assert_eq!(plain.kubernetes.warnafter, None);
        }
    }
}
