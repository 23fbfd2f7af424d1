//! Discovery: which groups, versions and resources there are, in the old form and in the aggregated one.

use http::{Method, Response, StatusCode};
use orch_core::status::ApiError;
use serde_json::{Value, json};

use super::dispatch::Call;
use crate::http::accept::{Shape, negotiate};
use crate::http::body::Body;
use crate::http::path::Route;
use crate::http::response;
use crate::registry::{Resource, ResourceSet};
use crate::resource::{ResourceInfo, Verbs};

/// The groups that come first, as kube-apiserver orders them; all others follow by name.
const GROUP_ORDER: [&str; 18] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
];

pub(super) fn answer(call: &Call<'_>, route: &Route<'_>) -> Result<Response<Body>, ApiError> {
    if !matches!(*call.method, Method::GET | Method::HEAD) {
        return Err(call.method_not_allowed());
    }
    let resources = &*call.context.resources.load();
    let aggregates = matches!(route, Route::CoreVersions | Route::Groups);
    let shape = negotiate(call.headers, |shape| match shape {
        Shape::AggregatedDiscovery(_) => aggregates,
        other => other == Shape::Object,
    })?;
    let document = match (route, shape) {
        (Route::CoreVersions, Shape::AggregatedDiscovery(version)) => {
            return aggregated(resources, version, |group| group.is_empty());
        }
        (Route::Groups, Shape::AggregatedDiscovery(version)) => {
            return aggregated(resources, version, |group| !group.is_empty());
        }
        (Route::CoreVersions, _) => core_versions(),
        (Route::Groups, _) => {
            let groups: Vec<Value> = ordered(resources)
                .into_iter()
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, versions)| group(name, &versions))
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        (Route::Group(name), _) => {
            let found = ordered(resources)
                .into_iter()
                .find(|(group, _)| group == name && !group.is_empty());
            let (name, versions) = found.ok_or_else(ApiError::unknown_resource)?;
            let mut document = group(name, &versions);
            document["kind"] = json!("APIGroup");
            document["apiVersion"] = json!("v1");
            document
        }
        (Route::Resources { group, version }, _) => {
            resource_list(resources, group, version).ok_or_else(ApiError::unknown_resource)?
        }
        (Route::Object(_) | Route::Other(_), _) => return Err(ApiError::unknown_resource()),
    };
    response::serialised(StatusCode::OK, &document)
}

/// Groups in upstream's order, each with its versions, the preferred one first.
fn ordered(resources: &ResourceSet) -> Vec<(&str, Vec<&str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = resources.groups().collect();
    let place = |group: &str| {
        GROUP_ORDER
            .iter()
            .position(|known| *known == group)
            .unwrap_or(GROUP_ORDER.len())
    };
    groups.sort_by_key(|(group, _)| (place(group), *group));
    for (_, versions) in &mut groups {
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
    }
    groups
}

/// Kubernetes' order of versions: stable before beta before alpha, then higher numbers first.
fn priority(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, stage) = rest.split_at(digits);
    let number = |text: &str| text.parse().unwrap_or(0);
    match (stage.strip_prefix("beta"), stage.strip_prefix("alpha")) {
        (Some(minor), _) => (2, number(major), number(minor)),
        (_, Some(minor)) => (1, number(major), number(minor)),
        _ if stage.is_empty() => (3, number(major), 0),
        _ => (0, 0, 0),
    }
}

fn core_versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
    })
}

fn group(name: &str, versions: &[&str]) -> Value {
    let entries: Vec<Value> = versions
        .iter()
        .map(|version| group_version(name, version))
        .collect();
    json!({"name": name, "versions": entries, "preferredVersion": entries.first()})
}

fn group_version(group: &str, version: &str) -> Value {
    json!({"groupVersion": group_version_text(group, version), "version": version})
}

fn group_version_text(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

fn verbs(verbs: Verbs) -> Vec<&'static str> {
    verbs.iter().map(crate::resource::Verb::as_str).collect()
}

fn resource_list(resources: &ResourceSet, group: &str, version: &str) -> Option<Value> {
    let known = resources.version(group, version)?;
    let entries: Vec<Value> = known
        .values()
        .flat_map(|resource| entries(resource.info(), resource.verbs()))
        .collect();
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group_version_text(group, version), "resources": entries,
    }))
}

/// A resource and its parts.
fn entries(info: &ResourceInfo, allowed: Verbs) -> Vec<Value> {
    let mut own = json!({
        "name": info.plural, "singularName": info.singular, "namespaced": info.is_namespaced(), "kind": info.kind,
        "verbs": verbs(allowed),
    });
    for (field, names) in [
        ("shortNames", &info.short_names),
        ("categories", &info.categories),
    ] {
        if !names.is_empty() {
            own[field] = json!(names);
        }
    }
    let parts = info.subresources.iter().map(|part| {
        let mut entry = json!({
            "name": format!("{}/{}", info.plural, part.as_str()), "singularName": "",
            "namespaced": info.is_namespaced(), "kind": part.kind().map_or(info.kind.as_ref(), |(_, _, kind)| kind),
            "verbs": verbs(part.verbs()),
        });
        if let Some((group, version, _)) = part.kind() {
            entry["group"] = json!(group);
            entry["version"] = json!(version);
        }
        entry
    });
    let mut entries: Vec<Value> = std::iter::once(own).chain(parts).collect();
    entries[1..].sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    entries
}

fn aggregated(
    resources: &ResourceSet,
    discovery: &'static str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Response<Body>, ApiError> {
    let items: Vec<Value> = ordered(resources)
        .into_iter()
        .filter(|(group, _)| wanted(group))
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let known = resources
                        .version(group, version)
                        .into_iter()
                        .flat_map(|known| known.values());
                    let entries: Vec<Value> = known.map(|resource| aggregated_entry(resource)).collect();
                    json!({"version": version, "resources": entries, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{discovery}"),
        "metadata": {}, "items": items,
    });
    let mut response = response::serialised(StatusCode::OK, &document)?;
    let media = format!("application/json;g=apidiscovery.k8s.io;v={discovery};as=APIGroupDiscoveryList");
    let media = http::HeaderValue::try_from(media).map_err(ApiError::internal)?;
    response.headers_mut().insert(http::header::CONTENT_TYPE, media);
    Ok(response)
}

fn aggregated_entry(resource: &Resource) -> Value {
    let info = resource.info();
    let kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let own = kind(&info.group, &info.version, &info.kind);
    let parts: Vec<Value> = info
        .subresources
        .iter()
        .map(|part| {
            let of = part.kind().map_or_else(
                || own.clone(),
                |(group, version, name)| kind(group, version, name),
            );
            json!({"subresource": part.as_str(), "responseKind": of, "verbs": verbs(part.verbs())})
        })
        .collect();
    let mut entry = json!({
        "resource": info.plural, "responseKind": own,
        "scope": if info.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": info.singular, "verbs": verbs(resource.verbs()),
    });
    for (field, names) in [
        ("shortNames", &info.short_names),
        ("categories", &info.categories),
    ] {
        if !names.is_empty() {
            entry[field] = json!(names);
        }
    }
    if !parts.is_empty() {
        entry["subresources"] = json!(parts);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_first() {
        let mut versions = ["v1alpha1", "v2", "v1beta2", "v1", "v10", "v1beta1"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1"]);
    }

    #[test]
    fn parts_are_listed_under_their_own_kind() {
        let info = ResourceInfo::namespaced("apps", "v1", "Deployment", "deployments")
            .short(["deploy"])
            .scale()
            .status();
        let entries = entries(&info, info.verbs);
        assert_eq!(entries[0]["shortNames"], json!(["deploy"]));
        assert_eq!(
            (&entries[1]["name"], &entries[1]["kind"]),
            (&json!("deployments/scale"), &json!("Scale"))
        );
        assert_eq!(entries[2]["kind"], "Deployment");
    }
}
