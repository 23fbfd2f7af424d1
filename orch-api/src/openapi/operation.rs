//! The paths of resources and the operations on them.

use serde_json::{Map, Value, json};

use super::schemas::{Definitions, Dialect};
use crate::crd::Custom;
use crate::resource::{ResourceInfo, Subresource, Verb, Verbs};
use crate::schema::{Type, builtin_root};

const MERGE_PATCHES: [&str; 3] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const OBJECT_TYPES: [&str; 2] = ["application/json", "application/yaml"];

/// Query parameters: name and type.
type Query = &'static [(&'static str, &'static str)];

const WRITE: Query = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];
const PATCH: Query = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
];
const DELETE: Query = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const LIST: Query = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];

type Gvk<'r> = (&'r str, &'r str, &'r str);

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    AllNamespaces,
    Collection,
    Object,
    Sub(Subresource),
}

/// A resource, and where its schema is if it is not a built-in one.
#[derive(Clone, Copy)]
pub(super) struct Served<'r> {
    pub(super) info: &'r ResourceInfo,
    pub(super) custom: Option<&'r Custom>,
}

/// The paths of the resources with their operations.
pub(super) fn paths<'r>(
    resources: impl Iterator<Item = Served<'r>>,
    definitions: &mut Definitions<'static>,
) -> Map<String, Value> {
    let mut found = Map::new();
    for resource in resources {
        for (target, path) in places(resource.info) {
            let item = path_item(resource, target, definitions);
            if item.iter().any(|(name, _)| name != "parameters") {
                found.insert(path, Value::Object(item));
            }
        }
    }
    found
}

fn places(resource: &ResourceInfo) -> Vec<(Target, String)> {
    let root = match resource.group.as_ref() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    let plural = &resource.plural;
    let mut places = Vec::new();
    let collection = if resource.is_namespaced() {
        places.push((Target::AllNamespaces, format!("{root}/{plural}")));
        format!("{root}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{root}/{plural}")
    };
    let object = format!("{collection}/{{name}}");
    places.push((Target::Collection, collection));
    for sub in &resource.subresources {
        places.push((Target::Sub(*sub), format!("{object}/{}", sub.as_str())));
    }
    places.push((Target::Object, object));
    places
}

fn path_item(
    served: Served<'_>,
    target: Target,
    definitions: &mut Definitions<'static>,
) -> Map<String, Value> {
    let resource = served.info;
    let verbs: Vec<(Verb, &str)> = match target {
        Target::AllNamespaces => vec![(Verb::List, "get")],
        Target::Collection => {
            vec![
                (Verb::List, "get"),
                (Verb::Create, "post"),
                (Verb::DeleteCollection, "delete"),
            ]
        }
        Target::Object | Target::Sub(_) => vec![
            (Verb::Get, "get"),
            (Verb::Create, "post"),
            (Verb::Update, "put"),
            (Verb::Patch, "patch"),
            (Verb::Delete, "delete"),
        ],
    };
    let allowed: Verbs = match target {
        Target::Sub(sub) => sub.verbs(),
        Target::Object => resource.verbs.without(Verb::Create),
        Target::AllNamespaces | Target::Collection => resource.verbs,
    };
    let mut item = Map::new();
    for (verb, method) in verbs.into_iter().filter(|(verb, _)| allowed.contains(*verb)) {
        item.insert(method.to_owned(), operation(served, target, verb, definitions));
    }
    let mut parameters = Vec::new();
    if matches!(target, Target::Object | Target::Sub(_)) {
        parameters.push(parameter(definitions.dialect(), "path", "name", "string"));
    }
    if resource.is_namespaced() && target != Target::AllNamespaces {
        parameters.push(parameter(definitions.dialect(), "path", "namespace", "string"));
    }
    parameters.push(parameter(definitions.dialect(), "query", "pretty", "string"));
    item.insert("parameters".to_owned(), parameters.into());
    item
}

fn operation(
    served: Served<'_>,
    target: Target,
    verb: Verb,
    definitions: &mut Definitions<'static>,
) -> Value {
    let resource = served.info;
    let gvk = match target {
        Target::Sub(sub) => sub.kind(),
        Target::AllNamespaces | Target::Collection | Target::Object => None,
    };
    let custom = served.custom.filter(|_| gvk.is_none());
    let (group, version, kind) = gvk.unwrap_or((&resource.group, &resource.version, &resource.kind));
    let mut operation = json!({
        "operationId": operation_id(resource, target, verb),
        "x-kubernetes-action": action(target, verb),
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    });
    let query: Query = match verb {
        _ if connects(target) => &[],
        Verb::Create | Verb::Update => WRITE,
        Verb::Patch => PATCH,
        Verb::Delete => DELETE,
        Verb::DeleteCollection | Verb::List | Verb::Watch => LIST,
        Verb::Get => &[],
    };
    let dialect = definitions.dialect();
    let mut parameters: Vec<Value> = query
        .iter()
        .map(|(name, ty)| parameter(dialect, "query", name, ty))
        .collect();
    if !connects(target) {
        if let Some((schema, media)) = body(verb, (group, version, kind), custom, definitions) {
            add_body(&mut operation, &mut parameters, dialect, &schema, &media);
        }
        let schema = response((group, version, kind), custom, verb, definitions);
        add_response(&mut operation, dialect, &schema);
    } else {
        operation["responses"] = json!({"200": {"description": "OK"}});
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

fn connects(target: Target) -> bool {
    matches!(
        target,
        Target::Sub(
            Subresource::Exec
                | Subresource::Attach
                | Subresource::PortForward
                | Subresource::Proxy
                | Subresource::Log
        )
    )
}

fn action(target: Target, verb: Verb) -> &'static str {
    match verb {
        _ if connects(target) && target != Target::Sub(Subresource::Log) => "connect",
        Verb::Create => "post",
        Verb::Update => "put",
        Verb::Patch => "patch",
        Verb::Delete => "delete",
        Verb::DeleteCollection => "deletecollection",
        Verb::List => "list",
        Verb::Get => "get",
        Verb::Watch => "watchlist",
    }
}

fn operation_id(resource: &ResourceInfo, target: Target, verb: Verb) -> String {
    let group = match resource.group.as_ref() {
        "" => "Core".to_owned(),
        group => group
            .trim_end_matches(".k8s.io")
            .split('.')
            .map(capital)
            .collect(),
    };
    let prefix = match verb {
        _ if connects(target) && target != Target::Sub(Subresource::Log) => {
            format!("connect{}", capital(&format!("{verb:?}")))
        }
        Verb::Create => "create".to_owned(),
        Verb::Update => "replace".to_owned(),
        Verb::Patch => "patch".to_owned(),
        Verb::Delete | Verb::DeleteCollection => "delete".to_owned(),
        Verb::List => "list".to_owned(),
        Verb::Get => "read".to_owned(),
        Verb::Watch => "watch".to_owned(),
    };
    let many = if verb == Verb::DeleteCollection {
        "Collection"
    } else {
        ""
    };
    let scope = if resource.is_namespaced() && target != Target::AllNamespaces {
        "Namespaced"
    } else {
        ""
    };
    let suffix = match target {
        Target::AllNamespaces => "ForAllNamespaces".to_owned(),
        Target::Sub(sub) => capital(sub.as_str()),
        Target::Collection | Target::Object => String::new(),
    };
    let version = capital(&resource.version);
    format!("{prefix}{group}{version}{many}{scope}{}{suffix}", resource.kind)
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map(|first| first.to_ascii_uppercase())
        .into_iter()
        .chain(letters)
        .collect()
}

fn parameter(dialect: Dialect, place: &str, name: &str, ty: &str) -> Value {
    let mut parameter = json!({"in": place, "name": name});
    if place == "path" {
        parameter["required"] = true.into();
    }
    match dialect {
        Dialect::V2 => {
            parameter["type"] = ty.into();
            parameter["uniqueItems"] = true.into();
        }
        Dialect::V3 => parameter["schema"] = json!({"type": ty, "uniqueItems": true}),
    }
    parameter
}

fn type_of((group, version, kind): Gvk<'_>) -> Option<&'static Type> {
    builtin_root(group, version, kind)
}

/// The schema and the media types of the request's body.
fn body(
    verb: Verb,
    gvk: Gvk<'_>,
    custom: Option<&Custom>,
    definitions: &mut Definitions<'static>,
) -> Option<(Value, Vec<&'static str>)> {
    match verb {
        Verb::Create | Verb::Update if custom.is_some() => {
            Some((custom_schema(custom, false, definitions)?, OBJECT_TYPES.to_vec()))
        }
        Verb::Create | Verb::Update => {
            Some((schema_or_object(type_of(gvk), definitions), OBJECT_TYPES.to_vec()))
        }
        Verb::Patch => {
            let mut media = MERGE_PATCHES.to_vec();
            if type_of(gvk).is_some() {
                media.push(STRATEGIC_PATCH);
            }
            Some((definitions.patch_reference(), media))
        }
        Verb::Delete | Verb::DeleteCollection => Some((
            schema_or_object(type_of(("", "v1", "DeleteOptions")), definitions),
            OBJECT_TYPES.to_vec(),
        )),
        Verb::Get | Verb::List | Verb::Watch => None,
    }
}

fn custom_schema(
    custom: Option<&Custom>,
    list: bool,
    definitions: &mut Definitions<'static>,
) -> Option<Value> {
    Some(definitions.custom(custom?, list))
}

fn response(
    (group, version, kind): Gvk<'_>,
    custom: Option<&Custom>,
    verb: Verb,
    definitions: &mut Definitions<'static>,
) -> Value {
    let list = matches!(verb, Verb::List | Verb::Watch);
    if !matches!(verb, Verb::Delete | Verb::DeleteCollection)
        && let Some(schema) = custom_schema(custom, list, definitions)
    {
        return schema;
    }
    let ty = match verb {
        Verb::List | Verb::Watch => type_of((group, version, &format!("{kind}List"))),
        Verb::Delete | Verb::DeleteCollection => type_of(("", "v1", "Status")),
        Verb::Create | Verb::Get | Verb::Patch | Verb::Update => type_of((group, version, kind)),
    };
    schema_or_object(ty, definitions)
}

fn schema_or_object(ty: Option<&'static Type>, definitions: &mut Definitions<'static>) -> Value {
    match ty {
        Some(ty) => definitions.schema(ty),
        None => json!({"type": "object"}),
    }
}

fn add_body(
    operation: &mut Value,
    parameters: &mut Vec<Value>,
    dialect: Dialect,
    schema: &Value,
    media: &[&str],
) {
    match dialect {
        Dialect::V2 => {
            parameters.insert(
                0,
                json!({"in": "body", "name": "body", "required": true, "schema": schema}),
            );
            operation["consumes"] = json!(media);
        }
        Dialect::V3 => {
            let content: Map<String, Value> = media
                .iter()
                .map(|media| ((*media).to_owned(), json!({"schema": schema})))
                .collect();
            operation["requestBody"] = json!({"content": content, "required": true});
        }
    }
}

fn add_response(operation: &mut Value, dialect: Dialect, schema: &Value) {
    operation["responses"] = match dialect {
        Dialect::V2 => {
            operation["produces"] = json!(["application/json"]);
            json!({"200": {"description": "OK", "schema": schema}})
        }
        Dialect::V3 => {
            json!({"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}})
        }
    };
}
