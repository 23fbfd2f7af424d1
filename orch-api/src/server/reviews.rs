//! Questions that clients ask about rights and identities. Nothing is stored.

use http::{Method, Response, StatusCode};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus, UserInfo as ApiUser};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview,
    SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use orch_core::status::{ApiError, Reason};
use serde::de::DeserializeOwned;

use super::dispatch::Call;
use crate::authz::{Attributes, Decision};
use crate::http::body::Body;
use crate::http::response;
use crate::resource::{ResourceInfo, Verbs};
use crate::strategy::{Strategy, generic};
use crate::user::UserInfo;

const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The resources that only answer, for discovery.
pub(super) fn resources() -> Vec<std::sync::Arc<dyn Strategy>> {
    let cluster = |group, kind, plural| ResourceInfo::cluster(group, "v1", kind, plural);
    [
        ResourceInfo::namespaced("", "v1", "Binding", "bindings"),
        cluster(AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews"),
        ResourceInfo::namespaced(
            AUTHORIZATION,
            "v1",
            "LocalSubjectAccessReview",
            "localsubjectaccessreviews",
        ),
        cluster(
            AUTHORIZATION,
            "SelfSubjectAccessReview",
            "selfsubjectaccessreviews",
        ),
        cluster(AUTHORIZATION, "SubjectAccessReview", "subjectaccessreviews"),
    ]
    .into_iter()
    .map(|info| generic(info.verbs(Verbs::CREATE)))
    .collect()
}

/// Answers a review; `None` when the resource is none.
pub(super) async fn answer(
    call: &Call<'_>,
    group: &str,
    plural: &str,
    namespace: &str,
) -> Option<Result<Response<Body>, ApiError>> {
    if *call.method != Method::POST {
        return None;
    }
    match (group, plural) {
        (AUTHENTICATION, "selfsubjectreviews") => Some(who_am_i(call)),
        (AUTHORIZATION, "selfsubjectaccessreviews") => Some(may_i(call).await),
        (AUTHORIZATION, "subjectaccessreviews") => Some(may_they(call).await),
        (AUTHORIZATION, "localsubjectaccessreviews") => Some(may_they_here(call, namespace).await),
        _ => None,
    }
}

fn read<T: DeserializeOwned>(call: &Call<'_>, kind: &str) -> Result<T, ApiError> {
    serde_json::from_slice(&call.json()?).map_err(|error| {
        ApiError::bad_request(format!(
            "{kind} in version \"v1\" cannot be handled as a {kind}: {error}"
        ))
    })
}

fn who_am_i(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let mut review: SelfSubjectReview = read(call, "SelfSubjectReview")?;
    let user = call.user;
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let info = ApiUser {
        username: text(&user.name),
        uid: text(&user.uid),
        groups: Some(user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
    };
    review.status = Some(SelfSubjectReviewStatus {
        user_info: Some(info),
    });
    response::serialised(StatusCode::CREATED, &review)
}

async fn may_i(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let mut review: SelfSubjectAccessReview = read(call, "SelfSubjectAccessReview")?;
    let spec = &review.spec;
    let attributes = attributes(
        spec.resource_attributes.as_ref(),
        spec.non_resource_attributes.as_ref(),
    )?;
    review.status = Some(decide(call, call.user, &attributes).await);
    response::serialised(StatusCode::CREATED, &review)
}

async fn may_they(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let mut review: SubjectAccessReview = read(call, "SubjectAccessReview")?;
    review.status = Some(of_subject(call, &review.spec).await?);
    response::serialised(StatusCode::CREATED, &review)
}

async fn may_they_here(call: &Call<'_>, namespace: &str) -> Result<Response<Body>, ApiError> {
    let mut review: LocalSubjectAccessReview = read(call, "LocalSubjectAccessReview")?;
    let asked = review
        .spec
        .resource_attributes
        .as_ref()
        .and_then(|asked| asked.namespace.as_deref());
    if asked.unwrap_or_default() != namespace {
        return Err(ApiError::bad_request(format!(
            "spec.resourceAttributes.namespace must match namespace: {namespace}"
        )));
    }
    review.status = Some(of_subject(call, &review.spec).await?);
    response::serialised(StatusCode::CREATED, &review)
}

async fn of_subject(
    call: &Call<'_>,
    spec: &SubjectAccessReviewSpec,
) -> Result<SubjectAccessReviewStatus, ApiError> {
    let user = UserInfo {
        name: spec.user.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(ApiError::new(
            Reason::Invalid,
            "spec.user: Required value: at least one of user or group must be specified",
        ));
    }
    let attributes = attributes(
        spec.resource_attributes.as_ref(),
        spec.non_resource_attributes.as_ref(),
    )?;
    Ok(decide(call, &user, &attributes).await)
}

fn attributes(
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
) -> Result<Attributes, ApiError> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    match (resource, path) {
        (Some(resource), None) => Ok(Attributes {
            verb: text(&resource.verb),
            group: text(&resource.group),
            version: text(&resource.version),
            resource: text(&resource.resource),
            subresource: text(&resource.subresource),
            namespace: text(&resource.namespace),
            name: text(&resource.name),
            ..Attributes::default()
        }),
        (None, Some(path)) => Ok(Attributes {
            verb: text(&path.verb),
            path: text(&path.path),
            ..Attributes::default()
        }),
        _ => Err(ApiError::new(
            Reason::Invalid,
            "spec: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
    }
}

async fn decide(call: &Call<'_>, user: &UserInfo, attributes: &Attributes) -> SubjectAccessReviewStatus {
    let decision = call.context.authorizer.authorize(user, attributes).await;
    let (allowed, denied, reason) = match decision {
        Decision::Allow(why) => (true, None, why),
        Decision::Deny(why) => (false, Some(true), why),
        Decision::NoOpinion(why) => (false, None, why),
    };
    SubjectAccessReviewStatus {
        allowed,
        denied,
        reason: (!reason.is_empty()).then(|| reason.into_owned()),
        evaluation_error: None,
    }
}
