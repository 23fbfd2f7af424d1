//! Questions that clients ask about rights and identities. Nothing is stored.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, Response, StatusCode};
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo as ApiUser,
};
use k8s_openapi::api::authorization::v1::{
    FieldSelectorAttributes, LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule,
    ResourceAttributes, ResourceRule, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
    SubjectAccessReviewSpec, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use k8s_openapi::api::rbac::v1::PolicyRule;
use orch_core::selector::FieldSelector;
use orch_core::status::{ApiError, Reason};
use serde::de::DeserializeOwned;

use super::dispatch::Call;
use crate::authn::{Authenticator, Credentials};
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
        cluster(AUTHORIZATION, "SelfSubjectRulesReview", "selfsubjectrulesreviews"),
        cluster(AUTHENTICATION, "TokenReview", "tokenreviews"),
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
        (AUTHENTICATION, "tokenreviews") => Some(whose_token(call).await),
        (AUTHORIZATION, "selfsubjectrulesreviews") => Some(what_may_i(call).await),
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
    review.status = Some(SelfSubjectReviewStatus {
        user_info: Some(described(call.user)),
    });
    response::serialised(StatusCode::CREATED, &review)
}

fn described(user: &UserInfo) -> ApiUser {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ApiUser {
        username: text(&user.name),
        uid: text(&user.uid),
        groups: Some(user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
    }
}

async fn whose_token(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let mut review: TokenReview = read(call, "TokenReview")?;
    let token = review.spec.token.clone();
    if token.is_empty() {
        return Err(ApiError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let wanted = review
        .spec
        .audiences
        .clone()
        .filter(|audiences| !audiences.is_empty());
    let audiences = wanted.as_deref().unwrap_or(&call.context.issuer.audiences);
    let credentials = Credentials {
        token: Some(&token),
        headers: &HeaderMap::new(),
        audiences,
    };
    review.status = Some(
        match call.context.authenticator.authenticate(&credentials).await {
            Ok(found) => TokenReviewStatus {
                authenticated: Some(found.is_some()),
                user: found.as_ref().map(|found| described(&found.user)),
                audiences: found.map(|found| found.audiences),
                error: None,
            },
            Err(error) => TokenReviewStatus {
                authenticated: Some(false),
                error: Some(error.to_string()),
                ..TokenReviewStatus::default()
            },
        },
    );
    response::serialised(StatusCode::CREATED, &review)
}

async fn what_may_i(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let mut review: SelfSubjectRulesReview = read(call, "SelfSubjectRulesReview")?;
    let namespace = review.spec.namespace.clone().unwrap_or_default();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let found = call.context.authorizer.rules(call.user, &namespace).await;
    let (of_paths, of_resources): (Vec<PolicyRule>, Vec<PolicyRule>) =
        found.rules.into_iter().partition(|rule| {
            rule.non_resource_urls
                .as_ref()
                .is_some_and(|urls| !urls.is_empty())
        });
    review.status = Some(SubjectRulesReviewStatus {
        resource_rules: of_resources
            .into_iter()
            .map(|rule| ResourceRule {
                verbs: rule.verbs,
                api_groups: rule.api_groups,
                resources: rule.resources,
                resource_names: rule.resource_names,
            })
            .collect(),
        non_resource_rules: of_paths
            .into_iter()
            .map(|rule| NonResourceRule {
                verbs: rule.verbs,
                non_resource_urls: rule.non_resource_urls,
            })
            .collect(),
        incomplete: !found.incomplete.is_empty(),
        evaluation_error: (!found.incomplete.is_empty()).then_some(found.incomplete),
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
            selected_fields: required(resource.field_selector.as_ref()),
            path: String::new(),
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

/// What a field selector wants to be equal, in either of its two forms.
fn required(selector: Option<&FieldSelectorAttributes>) -> BTreeMap<String, String> {
    let Some(selector) = selector else {
        return BTreeMap::new();
    };
    if let Some(Ok(raw)) = selector.raw_selector.as_deref().map(FieldSelector::parse) {
        let exact = raw.requirements().iter().filter(|one| !one.not);
        return exact.map(|one| (one.field.clone(), one.value.clone())).collect();
    }
    let requirements = selector.requirements.iter().flatten();
    let exact = requirements.filter(|one| one.operator == "In");
    exact
        .filter_map(|one| match one.values.as_deref() {
            Some([value]) => Some((one.key.clone(), value.clone())),
            _ => None,
        })
        .collect()
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
