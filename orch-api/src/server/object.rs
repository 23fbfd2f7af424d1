//! Requests about resources and objects.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use k8s_openapi::api::core::v1::Binding;
use orch_core::status::ApiError;

use super::dispatch::Call;
use super::reviews;
use crate::http::accept::{Shape, negotiate_object};
use crate::http::body::Body;
use crate::http::path::Target;
use crate::http::response;
use crate::registry::delete::Deletion;
use crate::registry::options::{ListOptions, WriteOptions, resource_version};
use crate::registry::parts::{binding, eviction, log, not_implemented, scale, token};
use crate::registry::patch::Format;
use crate::registry::selection::Selection;
use crate::registry::table::{self, IncludeObject};
use crate::registry::write::{Outcome, Write};
use crate::registry::{Resource, list, read, watch};
use crate::resource::{Scope, Subresource, Verb};

pub(super) async fn answer(call: &Call<'_>, target: &Target<'_>) -> Result<Response<Body>, ApiError> {
    let found = call
        .context
        .resources
        .get(target.group, target.version, &target.resource);
    let resource = found.ok_or_else(ApiError::unknown_resource)?;
    let mut response = answer_about(call, target, &resource).await?;
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") && *call.method != Method::GET {
        call.context.definitions.settled(call.context).await;
    }
    if let Some(notice) = resource.strategy.notice() {
        response::warn(&mut response, &[notice.to_owned()]);
    }
    Ok(response)
}

async fn answer_about(
    call: &Call<'_>,
    target: &Target<'_>,
    resource: &Arc<Resource>,
) -> Result<Response<Body>, ApiError> {
    let namespace = target.namespace.as_deref().unwrap_or_default();
    if let Some(answer) = reviews::answer(call, target.group, &target.resource, namespace).await {
        return answer;
    }
    if resource.info().scope == Scope::Cluster && !namespace.is_empty() {
        return Err(ApiError::unknown_resource());
    }
    match (target.name.as_deref(), target.subresource.as_deref()) {
        (None, _) if resource.is("", "bindings") && !namespace.is_empty() => {
            legacy_binding(call, namespace).await
        }
        (None, _) => collection(call, resource, namespace, target.watch).await,
        (Some(_), _) if resource.info().is_namespaced() && namespace.is_empty() => {
            Err(ApiError::unknown_resource())
        }
        (Some(name), None) if target.watch => watch_one(call, resource, namespace, name).await,
        (Some(name), None) => one(call, resource, namespace, name, None).await,
        (Some(name), Some(part)) => {
            let subresource = Subresource::parse(part).ok_or_else(ApiError::unknown_resource)?;
            if !resource.info().has(subresource) {
                return Err(absent(resource, subresource));
            }
            part_of(call, resource, namespace, name, subresource).await
        }
    }
}

fn allow(call: &Call<'_>, resource: &Resource, verb: Verb) -> Result<(), ApiError> {
    if resource.info().verbs.contains(verb) {
        Ok(())
    } else {
        Err(call.method_not_allowed())
    }
}

async fn collection(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    namespace: &str,
    watch_path: bool,
) -> Result<Response<Body>, ApiError> {
    let across = resource.info().is_namespaced() && namespace.is_empty();
    match *call.method {
        Method::GET => {
            let mut options = ListOptions::parse(&call.query)?;
            options.watch |= watch_path;
            allow(
                call,
                resource,
                if options.watch { Verb::Watch } else { Verb::List },
            )?;
            read_collection(call, resource, namespace, &options).await
        }
        Method::POST if !across => {
            allow(call, resource, Verb::Create)?;
            let options = WriteOptions::parse(&call.query, call.headers, "CreateOptions")?;
            let body = call.json()?;
            let outcome = write(call, resource, namespace, None, &options)
                .create(&body)
                .await?;
            respond(call, resource, outcome)
        }
        Method::DELETE if !across => {
            allow(call, resource, Verb::DeleteCollection)?;
            delete_collection(call, resource, namespace).await
        }
        _ => Err(call.method_not_allowed()),
    }
}

fn write<'a>(
    call: &'a Call<'_>,
    resource: &'a Resource,
    namespace: &'a str,
    subresource: Option<Subresource>,
    options: &'a WriteOptions,
) -> Write<'a> {
    Write {
        context: call.context,
        resource,
        namespace,
        subresource,
        user: call.user,
        options,
    }
}

async fn read_collection(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    namespace: &str,
    options: &ListOptions,
) -> Result<Response<Body>, ApiError> {
    let shape = negotiate_object(call.headers)?;
    let include = IncludeObject::parse(&call.query)?;
    let selection = Selection::parse(resource, namespace, options)?;
    if options.watch {
        return watch::watch(Arc::clone(resource), selection, options, shape, include).await;
    }
    list::page(resource, &selection, options)
        .await?
        .respond(resource, shape, include)
}

/// `/watch/…/NAME`, the old way to watch one object.
async fn watch_one(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    namespace: &str,
    name: &str,
) -> Result<Response<Body>, ApiError> {
    if *call.method != Method::GET {
        return Err(call.method_not_allowed());
    }
    let mut options = ListOptions::parse(&call.query)?;
    options.watch = true;
    options.field_selector = format!("metadata.name={name}");
    read_collection(call, resource, namespace, &options).await
}

async fn delete_collection(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    namespace: &str,
) -> Result<Response<Body>, ApiError> {
    let mut options = ListOptions::parse(&call.query)?;
    options.watch = false;
    let wanted = Deletion::parse(&call.query, &call.json()?)?;
    let selection = Selection::parse(resource, namespace, &options)?;
    let page = list::page(resource, &selection, &options).await?;
    let writes = WriteOptions {
        dry_run: wanted.dry_run,
        ..WriteOptions::default()
    };
    for entry in &page.items {
        match write(call, resource, &entry.namespace, None, &writes)
            .delete(&entry.name, &wanted)
            .await
        {
            Ok(_) => (),
            // Somebody else was faster, which is as good.
            Err(error) if error.is_not_found() => (),
            Err(error) => return Err(error),
        }
    }
    page.respond(
        resource,
        negotiate_object(call.headers)?,
        IncludeObject::parse(&call.query)?,
    )
}

/// An object, or its status.
async fn one(
    call: &Call<'_>,
    resource: &Resource,
    namespace: &str,
    name: &str,
    part: Option<Subresource>,
) -> Result<Response<Body>, ApiError> {
    match *call.method {
        Method::GET | Method::HEAD => {
            allow(call, resource, Verb::Get)?;
            let shape = negotiate_object(call.headers)?;
            read::get(call.context, resource, namespace, name, &call.query, shape).await
        }
        Method::PUT => {
            allow(call, resource, Verb::Update)?;
            let options = WriteOptions::parse(&call.query, call.headers, "UpdateOptions")?;
            let body = call.json()?;
            let outcome = write(call, resource, namespace, part, &options)
                .replace(name, &body)
                .await?;
            respond(call, resource, outcome)
        }
        Method::PATCH => {
            allow(call, resource, Verb::Patch)?;
            let format = Format::of(call.headers)?;
            let options = WriteOptions::parse(&call.query, call.headers, "PatchOptions")?;
            let outcome = write(call, resource, namespace, part, &options)
                .patch(name, format, &call.body)
                .await?;
            respond(call, resource, outcome)
        }
        Method::DELETE if part.is_none() => {
            allow(call, resource, Verb::Delete)?;
            let wanted = Deletion::parse(&call.query, &call.json()?)?;
            let options = WriteOptions {
                dry_run: wanted.dry_run,
                ..WriteOptions::default()
            };
            let write = write(call, resource, namespace, None, &options);
            let deleted = write.delete(name, &wanted).await?;
            let (code, json) = write.answer(name, &wanted, deleted)?;
            Ok(response::json(code, json))
        }
        _ => Err(call.method_not_allowed()),
    }
}

async fn part_of(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    namespace: &str,
    name: &str,
    part: Subresource,
) -> Result<Response<Body>, ApiError> {
    match part {
        Subresource::Status => one(call, resource, namespace, name, Some(part)).await,
        Subresource::Scale => scale(call, resource, namespace, name).await,
        Subresource::Binding => {
            require(call, &Method::POST)?;
            let binding = binding::read(&call.json()?, Some(name))?;
            bind(call, resource, namespace, &binding).await
        }
        Subresource::Finalize => {
            require(call, &Method::PUT)?;
            let options = WriteOptions::parse(&call.query, call.headers, "UpdateOptions")?;
            let body = call.json()?;
            let outcome = write(call, resource, namespace, Some(part), &options)
                .finalize_namespace(name, &body)
                .await?;
            respond(call, resource, outcome)
        }
        Subresource::Eviction => {
            require(call, &Method::POST)?;
            let wanted = eviction::read(&call.json()?, name)?;
            let options = WriteOptions {
                dry_run: wanted.dry_run,
                ..WriteOptions::default()
            };
            write(call, resource, namespace, Some(part), &options)
                .evict(name, &wanted)
                .await?;
            response::success(StatusCode::CREATED)
        }
        Subresource::Log => {
            require(call, &Method::GET)?;
            log::log(call.context, resource, namespace, name, &call.query, call.headers).await
        }
        Subresource::Token => {
            require(call, &Method::POST)?;
            let options = WriteOptions::parse(&call.query, call.headers, "CreateOptions")?;
            let request = token::read(&call.json()?, name)?;
            let outcome = write(call, resource, namespace, Some(part), &options)
                .issue_token(name, request)
                .await?;
            Ok(response::json(outcome.code, outcome.json))
        }
        Subresource::Exec
        | Subresource::Attach
        | Subresource::PortForward
        | Subresource::Proxy
        | Subresource::EphemeralContainers
        | Subresource::Resize
        | Subresource::Approval => Err(not_implemented(&format!(
            "{}/{}",
            resource.group_resource,
            part.as_str()
        ))),
    }
}

/// The answer about a part that an object does not have: clear words for those that Kubernetes has and this server
/// does not.
fn absent(resource: &Resource, part: Subresource) -> ApiError {
    let upstream: &[Subresource] = match (resource.info().group.as_ref(), resource.info().plural.as_ref()) {
        ("", "pods") => &[
            Subresource::Exec,
            Subresource::Attach,
            Subresource::PortForward,
            Subresource::Proxy,
            Subresource::EphemeralContainers,
            Subresource::Resize,
        ],
        ("", "services" | "nodes") => &[Subresource::Proxy],
        ("certificates.k8s.io", "certificatesigningrequests") => &[Subresource::Approval],
        _ => &[],
    };
    if upstream.contains(&part) {
        return not_implemented(&format!("{}/{}", resource.group_resource, part.as_str()));
    }
    ApiError::unknown_resource()
}

fn require(call: &Call<'_>, method: &Method) -> Result<(), ApiError> {
    if call.method == method {
        Ok(())
    } else {
        Err(call.method_not_allowed())
    }
}

async fn scale(
    call: &Call<'_>,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<Response<Body>, ApiError> {
    let part = Some(Subresource::Scale);
    let outcome = match *call.method {
        Method::GET | Method::HEAD => {
            let version = resource_version(call.query.get("resourceVersion"))?;
            let json = read::bytes(call.context, resource, namespace, name, version).await?;
            return Ok(response::json(
                StatusCode::OK,
                scale::view(&*resource.strategy, &json)?,
            ));
        }
        Method::PUT => {
            let options = WriteOptions::parse(&call.query, call.headers, "UpdateOptions")?;
            let body = call.json()?;
            write(call, resource, namespace, part, &options)
                .replace_scale(name, &body)
                .await?
        }
        Method::PATCH => {
            let format = Format::of(call.headers)?;
            let options = WriteOptions::parse(&call.query, call.headers, "PatchOptions")?;
            write(call, resource, namespace, part, &options)
                .patch_scale(name, format, &call.body)
                .await?
        }
        _ => return Err(call.method_not_allowed()),
    };
    Ok(response::json(outcome.code, outcome.json))
}

async fn bind(
    call: &Call<'_>,
    pods: &Resource,
    namespace: &str,
    binding: &Binding,
) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(&call.query, call.headers, "CreateOptions")?;
    write(call, pods, namespace, Some(Subresource::Binding), &options)
        .bind(binding)
        .await?;
    response::success(StatusCode::CREATED)
}

/// POST to `bindings`, the old way to bind a pod.
async fn legacy_binding(call: &Call<'_>, namespace: &str) -> Result<Response<Body>, ApiError> {
    require(call, &Method::POST)?;
    let pods = call.context.core("pods").ok_or_else(ApiError::unknown_resource)?;
    bind(call, pods, namespace, &binding::read(&call.json()?, None)?).await
}

/// The answer to a write, in the shape that the client wants.
fn respond(call: &Call<'_>, resource: &Resource, outcome: Outcome) -> Result<Response<Body>, ApiError> {
    let Outcome { code, json, warnings } = outcome;
    let shape = negotiate_object(call.headers)?;
    let json = match shape {
        Shape::Object => json,
        shape => table::object(
            &*resource.strategy,
            shape,
            IncludeObject::parse(&call.query)?,
            &json,
        )?,
    };
    let mut response = response::json(code, json);
    response::warn(&mut response, &warnings);
    Ok(response)
}
