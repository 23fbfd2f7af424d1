//! From a request to the code that answers it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use orch_core::selector::FieldSelector;
use orch_core::status::{ApiError, Reason};

use super::{BoxError, discovery, health, identity, impersonation, object, openid};
use crate::authz::{Attributes, Decision, rbac, refusal};
use crate::context::Context;
use crate::http::body::Body;
use crate::http::path::{Route, Target, route};
use crate::http::query::Query;
use crate::http::response;
use crate::http::{gzip, protobuf};
use crate::user::UserInfo;

/// The largest body that a write may have, as upstream.
const MAX_BODY: usize = 3 << 20;

/// One request, its body read.
pub(super) struct Call<'a> {
    pub(super) context: &'a Arc<Context>,
    pub(super) user: &'a UserInfo,
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) query: Query,
    pub(super) body: Bytes,
}

pub(super) async fn handle<B>(
    context: Arc<Context>,
    user: Option<UserInfo>,
    request: Request<B>,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let running = context.metrics.begin(&parts.method);
    let mut asked = None;
    let answer = answer(&context, user, &parts, body, &mut asked).await;
    let response = answer.unwrap_or_else(response::failure);
    // Of what is not served any name may stand there.
    let served = asked.filter(|asked| {
        let resources = &context.resources;
        resources
            .get(&asked.group, &asked.version, &asked.resource)
            .is_some()
    });
    let dry_run = Query::parse(parts.uri.query()).get("dryRun") == Some("All");
    let response = running.end(served.as_ref(), &parts.method, &parts.headers, dry_run, response);
    if parts.method == Method::GET {
        return gzip::compress(&parts.headers, response);
    }
    response
}

async fn answer<B>(
    context: &Arc<Context>,
    user: Option<UserInfo>,
    parts: &Parts,
    body: B,
    asked: &mut Option<Attributes>,
) -> Result<Response<Body>, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let user = identity::of_request(context, user, &parts.headers).await?;
    let user = impersonation::effective(context, user, &parts.headers).await?;
    let route = route(parts.uri.path());
    let query = Query::parse(parts.uri.query());
    let attributes = attributes(&parts.method, &route, parts.uri.path(), &query);
    let attributes = &*asked.insert(attributes);
    authorize(context, &user, attributes).await?;
    let body = read(body).await?;
    let call = Call {
        context,
        user: &user,
        method: &parts.method,
        headers: &parts.headers,
        query,
        body,
    };
    match route {
        Route::Object(target) => {
            let answered = object::answer(&call, &target).await?;
            rbac_settled(&call, &target).await;
            Ok(answered)
        }
        Route::Other(path) => match openid::answer(&call, path) {
            Some(answered) => answered,
            None => health::answer(&call, path).await,
        },
        other => discovery::answer(&call, &other),
    }
}

/// After a write to a role or binding, waits until it counts here: who is answered may rely on it.
async fn rbac_settled(call: &Call<'_>, target: &Target<'_>) {
    if target.group != rbac::GROUP || matches!(*call.method, Method::GET | Method::HEAD) {
        return;
    }
    let resources = &call.context.resources;
    if let Some(resource) = resources.get(target.group, target.version, &target.resource)
        && let Err(error) = resource.cache.fresh().await
    {
        tracing::warn!(%error, "a change of roles or bindings counts later");
    }
}

pub(super) async fn authorize(
    context: &Context,
    user: &UserInfo,
    attributes: &Attributes,
) -> Result<(), ApiError> {
    match context.authorizer.authorize(user, attributes).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(why) | Decision::NoOpinion(why) => Err(refusal(user, attributes, &why)),
    }
}

/// What the request wants, in the words of authorization.
fn attributes(method: &Method, route: &Route<'_>, path: &str, query: &Query) -> Attributes {
    let Route::Object(target) = route else {
        let verb = method.as_str().to_ascii_lowercase();
        return Attributes {
            verb,
            path: path.to_owned(),
            ..Attributes::default()
        };
    };
    let text = |part: &Option<Cow<'_, str>>| part.as_deref().unwrap_or_default().to_owned();
    // A namespace is in itself, as upstream has it.
    let namespace = if target.resource == "namespaces" && target.namespace.is_none() {
        &target.name
    } else {
        &target.namespace
    };
    let verb = verb(method, target, query);
    let selected_fields = match verb {
        "list" | "watch" | "deletecollection" if target.name.is_none() => selected_fields(query),
        _ => BTreeMap::new(),
    };
    // A selector of one name is as good as the name.
    let selected_name = selected_fields.get("metadata.name").cloned();
    let name = target
        .name
        .as_deref()
        .map_or_else(|| selected_name.unwrap_or_default(), str::to_owned);
    Attributes {
        verb: verb.to_owned(),
        group: target.group.to_owned(),
        version: target.version.to_owned(),
        resource: target.resource.clone().into_owned(),
        subresource: text(&target.subresource),
        namespace: text(namespace),
        name,
        path: String::new(),
        selected_fields,
    }
}

/// What the field selector wants to be equal. One that cannot be read selects nothing here, and fails later.
fn selected_fields(query: &Query) -> BTreeMap<String, String> {
    let Some(Ok(selector)) = query.get("fieldSelector").map(FieldSelector::parse) else {
        return BTreeMap::new();
    };
    let exact = selector.requirements().iter().filter(|one| !one.not);
    exact.map(|one| (one.field.clone(), one.value.clone())).collect()
}

fn verb(method: &Method, target: &Target<'_>, query: &Query) -> &'static str {
    match (method, &target.name) {
        (&Method::GET | &Method::HEAD, None) if target.watch || query.flag("watch") => "watch",
        (&Method::GET | &Method::HEAD, Some(_)) if target.watch => "watch",
        (&Method::GET | &Method::HEAD, None) => "list",
        (&Method::GET | &Method::HEAD, Some(_)) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, None) => "deletecollection",
        (&Method::DELETE, Some(_)) => "delete",
        _ => "",
    }
}

async fn read<B>(body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::too_large(format!("limit is {MAX_BODY}")))
        }
        Err(error) => Err(ApiError::bad_request(format!("unable to read the body: {error}"))),
    }
}

impl Call<'_> {
    /// The body as JSON: written as such, as YAML, or as Go's typed clients write the built-in kinds.
    pub(super) fn json(&self) -> Result<Cow<'_, [u8]>, ApiError> {
        let media = self
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        match media.split(';').next().unwrap_or_default().trim() {
            "" | "application/json" | "*/*" => Ok(Cow::Borrowed(&self.body)),
            "application/yaml" => yaml_to_json(&self.body).map(Cow::Owned),
            protobuf::MEDIA_TYPE if self.body.is_empty() => Ok(Cow::Borrowed(&[])),
            protobuf::MEDIA_TYPE => protobuf_to_json(&self.body).map(Cow::Owned),
            _ => Err(ApiError::unsupported_media_type(&[
                "application/json",
                "application/yaml",
                protobuf::MEDIA_TYPE,
            ])),
        }
    }

    pub(super) fn method_not_allowed(&self) -> ApiError {
        ApiError::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
        .with_details(|_| ())
    }
}

fn protobuf_to_json(body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let value = protobuf::to_json(body).map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(value.to_string().into_bytes())
}

pub(crate) fn yaml_to_json(yaml: &[u8]) -> Result<Vec<u8>, ApiError> {
    let bad = |error: &dyn std::fmt::Display| ApiError::bad_request(format!("error parsing YAML: {error}"));
    let value: serde_json::Value = serde_saphyr::from_slice(yaml).map_err(|error| bad(&error))?;
    serde_json::to_vec(&value).map_err(|error| bad(&error))
}
