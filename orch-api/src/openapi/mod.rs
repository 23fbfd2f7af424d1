//! The OpenAPI documents that clients ask for: v2 as one document in JSON or protobuf, v3 as one document per group and
//! version with an index.
//!
//! kubectl reads them to learn whether the server validates fields (the `fieldValidation` parameter of PATCH, in v3, or
//! v2 for older ones), to validate manifests (1.2x, v2 in protobuf), to compute patches, and for `explain`. The
//! documents have every operation and the full shape of every built-in type with its merge rules; they have no
//! descriptions.
//!
//! Documents are built when they are asked for and not kept, only their ETags are: an idle server holds none of them.
//!
//! A router answers
//! - `GET /openapi/v2` with [`OpenApi::v2`], the encoding chosen by [`Encoding::of_accept`];
//! - `GET /openapi/v3` with [`OpenApi::v3_index`];
//! - `GET /openapi/v3/PATH` with [`OpenApi::v3`], where PATH is `api/v1`, `apis/apps/v1` and so on;
//!
//! and should answer `304 Not Modified` if `If-None-Match` is the ETag ([`OpenApi::v2_etag`], [`OpenApi::v3_etag`]).
//! A request for `/openapi/v3/PATH?hash=ETAG` may be cached for good by clients.
//!
//! ```
//! use orch_api::openapi::{Encoding, OpenApi};
//! use orch_api::resource::ResourceInfo;
//!
//! let pods = ResourceInfo::namespaced("", "v1", "Pod", "pods").status();
//! let openapi = OpenApi::new("v1.37.0", vec![pods]);
//! let document: serde_json::Value = serde_json::from_slice(&openapi.v3("api/v1").unwrap().body)?;
//! let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
//! assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Pod");
//! # Ok::<(), serde_json::Error>(())
//! ```

mod operation;
mod protobuf;
mod schemas;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::crd::Custom;
use crate::resource::ResourceInfo;
use operation::{Served, paths};
use schemas::{Definitions, Dialect};

/// The media types under which clients ask for the v2 document in protobuf. The first isn't a valid media type, so
/// answers bear the second: newer Go programs refuse the other.
pub const V2_PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// A document, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The bytes of the body.
    pub body: Bytes,
    /// A hash of the content, without quotation marks.
    pub etag: String,
    /// What `Content-Type` is to say.
    pub content_type: &'static str,
}

/// How the v2 document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    Json,
    /// gnostic's `openapi.v2.Document`.
    Protobuf,
}

impl Encoding {
    /// The encoding for an `Accept` header: the first that is known, JSON for anything else.
    #[must_use]
    pub fn of_accept(accept: &str) -> Self {
        accept
            .split(',')
            .map(|range| range.split(';').next().unwrap_or_default().trim())
            .find_map(|media| match media {
                "application/json" | "*/*" | "application/*" => Some(Self::Json),
                other if V2_PROTOBUF.contains(&other) => Some(Self::Protobuf),
                _ => None,
            })
            .unwrap_or(Self::Json)
    }
}

/// Builds the documents of an API from the list of its resources.
#[derive(Debug)]
pub struct OpenApi {
    version: String,
    /// By path, such as `apis/apps/v1`.
    groups: BTreeMap<String, Arc<Group>>,
    v2_etag: OnceLock<String>,
}

#[derive(Debug, Default)]
struct Group {
    resources: Vec<ResourceInfo>,
    custom: Vec<Custom>,
    etag: OnceLock<String>,
}

impl OpenApi {
    /// For the resources of an API server that calls itself `version` (`v1.37.0`).
    #[must_use]
    pub fn new(version: impl Into<String>, resources: Vec<ResourceInfo>) -> Self {
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for resource in resources {
            groups
                .entry(group_path(&resource))
                .or_default()
                .resources
                .push(resource);
        }
        Self {
            version: version.into(),
            groups: groups
                .into_iter()
                .map(|(path, group)| (path, Arc::new(group)))
                .collect(),
            v2_etag: OnceLock::new(),
        }
    }

    /// The same documents with these custom resources in them, in place of those that were there. What is known of groups
    /// that do not change is kept.
    pub(crate) fn with_custom(&self, custom: Vec<Custom>) -> Self {
        let mut wanted: BTreeMap<String, Vec<Custom>> = BTreeMap::new();
        for one in custom {
            wanted.entry(group_path(&one.info)).or_default().push(one);
        }
        let mut groups = BTreeMap::new();
        for (path, group) in &self.groups {
            let custom = wanted.remove(path).unwrap_or_default();
            if custom == group.custom {
                groups.insert(path.clone(), Arc::clone(group));
            } else if !(custom.is_empty() && group.resources.is_empty()) {
                let resources = group.resources.clone();
                groups.insert(
                    path.clone(),
                    Arc::new(Group {
                        resources,
                        custom,
                        etag: OnceLock::new(),
                    }),
                );
            }
        }
        for (path, custom) in wanted {
            groups.insert(
                path,
                Arc::new(Group {
                    custom,
                    ..Group::default()
                }),
            );
        }
        Self {
            version: self.version.clone(),
            groups,
            v2_etag: OnceLock::new(),
        }
    }

    /// The v2 document: all groups in one.
    #[must_use]
    pub fn v2(&self, encoding: Encoding) -> Document {
        let document = self.v2_value();
        let etag = self
            .v2_etag
            .get_or_init(|| hash(document.to_string().as_bytes()))
            .clone();
        match encoding {
            Encoding::Json => Document {
                body: document.to_string().into(),
                etag,
                content_type: "application/json",
            },
            Encoding::Protobuf => {
                let body = protobuf::encode(&document).into();
                Document {
                    body,
                    etag,
                    content_type: V2_PROTOBUF[1],
                }
            }
        }
    }

    /// The ETag of the v2 document.
    #[must_use]
    pub fn v2_etag(&self) -> &str {
        self.v2_etag
            .get_or_init(|| hash(self.v2_value().to_string().as_bytes()))
    }

    fn v2_value(&self) -> Value {
        let mut definitions = Definitions::new(Dialect::V2);
        let all = self.groups.values().flat_map(|group| group.served());
        let paths = paths(all, &mut definitions);
        json!({
            "swagger": "2.0",
            "info": self.info(),
            "paths": paths,
            "definitions": definitions.finish(),
        })
    }

    /// The index of the v3 documents.
    #[must_use]
    pub fn v3_index(&self) -> Document {
        let paths: Map<String, Value> = self
            .groups
            .keys()
            .filter_map(|path| {
                let url = format!("/openapi/v3/{path}?hash={}", self.v3_etag(path)?);
                Some((path.clone(), json!({"serverRelativeURL": url})))
            })
            .collect();
        let body = json!({"paths": paths}).to_string();
        Document {
            etag: hash(body.as_bytes()),
            body: body.into(),
            content_type: "application/json",
        }
    }

    /// The v3 document of a group and version, by its path: `api/v1`, `apis/apps/v1`.
    #[must_use]
    pub fn v3(&self, path: &str) -> Option<Document> {
        let group = self.groups.get(path)?;
        let body = self.v3_body(group);
        let etag = group.etag.get_or_init(|| hash(body.as_bytes())).clone();
        Some(Document {
            body: body.into(),
            etag,
            content_type: "application/json",
        })
    }

    /// The ETag of a v3 document.
    #[must_use]
    pub fn v3_etag(&self, path: &str) -> Option<&str> {
        let group = self.groups.get(path)?;
        Some(group.etag.get_or_init(|| hash(self.v3_body(group).as_bytes())))
    }

    fn v3_body(&self, group: &Group) -> String {
        let mut definitions = Definitions::new(Dialect::V3);
        let paths = paths(group.served(), &mut definitions);
        let document = json!({
            "openapi": "3.0.0",
            "info": self.info(),
            "paths": paths,
            "components": {"schemas": definitions.finish()},
        });
        document.to_string()
    }

    fn info(&self) -> Value {
        json!({"title": "Kubernetes", "version": self.version})
    }
}

impl Group {
    fn served(&self) -> impl Iterator<Item = Served<'_>> {
        let built_in = self.resources.iter().map(|info| Served { info, custom: None });
        let custom = self.custom.iter().map(|one| Served {
            info: &one.info,
            custom: Some(one),
        });
        built_in.chain(custom)
    }
}

fn group_path(resource: &ResourceInfo) -> String {
    if resource.group.is_empty() {
        format!("api/{}", resource.version)
    } else {
        format!("apis/{}/{}", resource.group, resource.version)
    }
}

fn hash(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Verbs;

    fn some() -> OpenApi {
        let resources = vec![
            ResourceInfo::namespaced("", "v1", "Pod", "pods").status(),
            ResourceInfo::cluster("", "v1", "Node", "nodes").status(),
            ResourceInfo::namespaced("apps", "v1", "Deployment", "deployments")
                .status()
                .scale(),
            ResourceInfo::cluster("authentication.k8s.io", "v1", "TokenReview", "tokenreviews")
                .verbs(Verbs::CREATE),
            ResourceInfo::namespaced("example.com", "v1", "Widget", "widgets"),
        ];
        OpenApi::new("v1.37.0", resources)
    }

    fn v3(path: &str) -> Value {
        serde_json::from_slice(&some().v3(path).unwrap().body).unwrap()
    }

    fn v2() -> Value {
        serde_json::from_slice(&some().v2(Encoding::Json).body).unwrap()
    }

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|inner| references(inner, found));
            }
            Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for (document, path) in [
            (v2(), "definitions"),
            (v3("api/v1"), "components/schemas"),
            (v3("apis/apps/v1"), "components/schemas"),
        ] {
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(found.len() > 100);
            for reference in found {
                let name = reference
                    .strip_prefix(&format!("#/{path}/"))
                    .unwrap_or_else(|| panic!("{reference}"));
                assert!(
                    document.pointer(&format!("/{path}/{name}")).is_some(),
                    "{reference}"
                );
            }
        }
    }

    #[test]
    fn kubectl_finds_field_validation_on_patch() {
        let document = v3("apis/apps/v1");
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        assert_eq!(patch["x-kubernetes-action"], "patch");
        let names: Vec<&str> = patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        for name in ["dryRun", "fieldManager", "fieldValidation", "force"] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    }

    #[test]
    fn a_kind_that_is_not_built_in_has_operations_and_no_definition() {
        let document = v3("apis/example.com/v1");
        let patch = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Widget");
        assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_null());
        assert!(
            document["components"]["schemas"]
                .as_object()
                .unwrap()
                .keys()
                .all(|name| !name.contains("Widget"))
        );
    }

    #[test]
    fn definitions_have_the_merge_rules_and_the_kind() {
        let document = v2();
        let service = &document["definitions"]["io.k8s.api.core.v1.Container"]["properties"]["ports"];
        assert_eq!(
            service["x-kubernetes-list-map-keys"],
            json!(["containerPort", "protocol"])
        );
        assert_eq!(service["x-kubernetes-patch-merge-key"], "containerPort");
        let pod = &document["definitions"]["io.k8s.api.core.v1.Pod"];
        assert_eq!(
            pod["x-kubernetes-group-version-kind"],
            json!([{"group": "", "version": "v1", "kind": "Pod"}])
        );
        let strategy = &v3("apis/apps/v1")["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]
            ["strategy"];
        assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
        assert_eq!(
            strategy["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy"
        );
    }

    #[test]
    fn the_index_names_each_document_with_its_hash() {
        let openapi = some();
        let index: Value = serde_json::from_slice(&openapi.v3_index().body).unwrap();
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
            .as_str()
            .unwrap();
        assert_eq!(
            url,
            format!(
                "/openapi/v3/apis/apps/v1?hash={}",
                openapi.v3("apis/apps/v1").unwrap().etag
            )
        );
        assert_eq!(index["paths"].as_object().unwrap().len(), 4);
        assert!(openapi.v3("apis/none/v1").is_none());
    }

    #[test]
    fn the_encoding_follows_the_accept_header() {
        assert_eq!(Encoding::of_accept(V2_PROTOBUF[0]), Encoding::Protobuf);
        assert_eq!(Encoding::of_accept("application/json, */*"), Encoding::Json);
        assert_eq!(Encoding::of_accept("text/html"), Encoding::Json);
        let mixed = format!("{};q=1, application/json", V2_PROTOBUF[1]);
        assert_eq!(Encoding::of_accept(&mixed), Encoding::Protobuf);
    }
}
