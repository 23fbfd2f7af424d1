//! The rules that make a schema structural: each value has a type, said once, outside of `allOf` and the like.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex::Regex;
use serde_json::Value;

use crate::crd::schema::{Schema, prune_and_note};
use crate::kinds::{Check, Path};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

pub(super) fn check_root(check: &mut Check, schema: &JSONSchemaProps, path: &Path) {
    let on = |flag: Option<bool>| flag == Some(true);
    match schema.type_.as_deref().unwrap_or_default() {
        "" => check.required(&path.child("type"), "must not be empty at the root"),
        "object" => (),
        other => check.invalid(&path.child("type"), other, "must be object at the root"),
    }
    if on(schema.nullable) {
        check.forbidden(&path.child("nullable"), "nullable cannot be true at the root");
    }
    if schema.default.is_some() {
        check.forbidden(&path.child("default"), "must not be set at the root");
    }
    if let Some(metadata) = schema.properties.as_ref().and_then(|all| all.get("metadata")) {
        check_metadata(check, metadata, &path.child("properties").key("metadata"));
    }
    structural(check, schema, path, At::Root);
}

/// Where in the whole a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Root,
    Field,
    Items,
}

fn check_metadata(check: &mut Check, schema: &JSONSchemaProps, path: &Path) {
    let more = schema
        .properties
        .iter()
        .flatten()
        .any(|(name, _)| name != "name" && name != "generateName");
    if more {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        check.forbidden(path, why);
    }
}

/// A schema that says what there is.
fn structural(check: &mut Check, schema: &JSONSchemaProps, path: &Path, at: At) {
    let on = |flag: Option<bool>| flag == Some(true);
    let (preserves, int_or_string) = (
        on(schema.x_kubernetes_preserve_unknown_fields),
        on(schema.x_kubernetes_int_or_string),
    );
    let ty = schema.type_.as_deref().unwrap_or_default();
    if at != At::Root {
        match (ty, int_or_string) {
            ("", false) if !preserves => check.required(
                &path.child("type"),
                if at == At::Items {
                    "must not be empty for specified array items"
                } else {
                    "must not be empty for specified object fields"
                },
            ),
            ("", _) => (),
            (ty, true) => check.invalid(
                &path.child("type"),
                ty,
                "must be empty if x-kubernetes-int-or-string is true",
            ),
            (_, false) => (),
        }
    }
    forbidden_everywhere(check, schema, path);
    check_value(check, schema, path);
    check_extensions(check, schema, path, ty);
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => {
            structural(check, items, &path.child("items"), At::Items)
        }
        Some(JSONSchemaPropsOrArray::Schemas(_)) => {
            check.forbidden(
                &path.child("items"),
                "items must be a schema object and not an array",
            );
        }
        None if ty == "array" => check.required(&path.child("items"), "must be specified"),
        None => (),
    }
    let properties = path.child("properties");
    for (name, inner) in schema.properties.iter().flatten() {
        if at == At::Root && name == "metadata" {
            continue;
        }
        structural(check, inner, &properties.key(name), At::Field);
    }
    let additional = path.child("additionalProperties");
    match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Bool(false)) => {
            check.forbidden(&additional, "additionalProperties cannot be set to false");
        }
        Some(_) if at == At::Root => check.forbidden(&additional, "must not be used at the root"),
        Some(JSONSchemaPropsOrBool::Schema(inner)) => structural(check, inner, &additional, At::Field),
        Some(JSONSchemaPropsOrBool::Bool(true)) | None => (),
    }
    if schema.properties.as_ref().is_some_and(|all| !all.is_empty()) && schema.additional_properties.is_some()
    {
        check.forbidden(
            &additional,
            "additionalProperties and properties are mutual exclusive",
        );
    }
    combinations(check, schema, schema, path, int_or_string);
    check_default(check, schema, path);
}

/// What upstream supports nowhere, or what has no use in a definition.
fn forbidden_everywhere(check: &mut Check, schema: &JSONSchemaProps, path: &Path) {
    for (field, set) in [
        ("$ref", schema.ref_path.is_some()),
        ("$schema", schema.schema.is_some()),
        ("id", schema.id.is_some()),
        ("definitions", schema.definitions.is_some()),
        ("dependencies", schema.dependencies.is_some()),
        ("additionalItems", schema.additional_items.is_some()),
        ("patternProperties", schema.pattern_properties.is_some()),
    ] {
        if set {
            check.forbidden(&path.child(field), format!("{field} is not supported"));
        }
    }
    if schema.unique_items == Some(true) {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        check.forbidden(&path.child("uniqueItems"), why);
    }
    if schema
        .x_kubernetes_validations
        .as_ref()
        .is_some_and(|rules| !rules.is_empty())
    {
        let why = "rules are not supported by this server yet";
        check.forbidden(&path.child("x-kubernetes-validations"), why);
    }
}

/// What a schema says about a value itself, which is checked in combinations too.
fn check_value(check: &mut Check, schema: &JSONSchemaProps, path: &Path) {
    match schema.type_.as_deref().unwrap_or_default() {
        "" => (),
        "null" => check.forbidden(
            &path.child("type"),
            "type cannot be set to null, use nullable as an alternative",
        ),
        ty if !TYPES.contains(&ty) => check.not_supported(&path.child("type"), ty, &TYPES),
        _ => (),
    }
    if let Some(pattern) = &schema.pattern
        && let Err(error) = Regex::new(pattern)
    {
        let why = error.to_string();
        let why = why
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        let why = format!("must be a valid regular expression, but isn't: {why}");
        check.invalid(&path.child("pattern"), pattern, why);
    }
    if schema.multiple_of.is_some_and(|factor| factor <= 0.0) {
        check.invalid(
            &path.child("multipleOf"),
            schema.multiple_of,
            "must be greater than zero",
        );
    }
}

fn check_extensions(check: &mut Check, schema: &JSONSchemaProps, path: &Path, ty: &str) {
    let on = |flag: Option<bool>| flag == Some(true);
    if schema.x_kubernetes_preserve_unknown_fields == Some(false) {
        let path = path.child("x-kubernetes-preserve-unknown-fields");
        check.invalid(&path, false, "must be true or undefined");
    }
    if on(schema.x_kubernetes_embedded_resource) {
        if ty != "object" {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            check.invalid(&path.child("type"), ty, why);
        }
        let empty = schema
            .properties
            .as_ref()
            .is_none_or(std::collections::BTreeMap::is_empty);
        if empty && !on(schema.x_kubernetes_preserve_unknown_fields) {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                       x-kubernetes-preserve-unknown-fields";
            check.required(&path.child("properties"), why);
        }
    }
    if let Some(map_type) = schema.x_kubernetes_map_type.as_deref() {
        let at = path.child("x-kubernetes-map-type");
        if !matches!(map_type, "atomic" | "granular") {
            check.not_supported(&at, map_type, &["atomic", "granular"]);
        }
        if ty != "object" {
            check.invalid(
                &path.child("type"),
                ty,
                "must be object if x-kubernetes-map-type is specified",
            );
        }
    }
    check_list(check, schema, path, ty);
}

fn check_list(check: &mut Check, schema: &JSONSchemaProps, path: &Path, ty: &str) {
    let keys = schema.x_kubernetes_list_map_keys.as_deref().unwrap_or_default();
    let at = path.child("x-kubernetes-list-map-keys");
    let Some(list_type) = schema.x_kubernetes_list_type.as_deref() else {
        if !keys.is_empty() {
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            check.required(&path.child("x-kubernetes-list-type"), why);
        }
        return;
    };
    if !matches!(list_type, "atomic" | "map" | "set") {
        let at = path.child("x-kubernetes-list-type");
        check.not_supported(&at, list_type, &["atomic", "map", "set"]);
        return;
    }
    if ty != "array" {
        check.invalid(
            &path.child("type"),
            ty,
            "must be array if x-kubernetes-list-type is specified",
        );
    }
    if list_type != "map" && !keys.is_empty() {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        check.invalid(&path.child("x-kubernetes-list-type"), list_type, why);
    }
    let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items else {
        return;
    };
    let items_path = path.child("items");
    if items.nullable == Some(true) && list_type != "atomic" {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        check.forbidden(&items_path.child("nullable"), why);
    }
    match list_type {
        "map" => check_keys(check, items, keys, &items_path, &at),
        "set" => check_set(check, items, &items_path),
        _ => (),
    }
}

fn check_keys(check: &mut Check, items: &JSONSchemaProps, keys: &[String], items_path: &Path, at: &Path) {
    if keys.is_empty() {
        check.required(at, "must not be empty if x-kubernetes-list-type is map");
    }
    if items.type_.as_deref() != Some("object") {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        check.invalid(&items_path.child("type"), &items.type_, why);
    }
    for (index, key) in keys.iter().enumerate() {
        if keys[..index].contains(key) {
            check.invalid(&at.index(index), key, "must not contain duplicate entries");
        }
        let Some(property) = items.properties.as_ref().and_then(|all| all.get(key)) else {
            check.invalid(at, key, "entries must all be names of item properties");
            continue;
        };
        let path = items_path.child("properties").key(key);
        if matches!(property.type_.as_deref(), Some("array" | "object")) {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            check.invalid(&path.child("type"), &property.type_, why);
        }
        let required = items.required.iter().flatten().any(|name| name == key);
        if !required && property.default.is_none() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            check.required(&path.child("default"), why);
        }
    }
}

fn check_set(check: &mut Check, items: &JSONSchemaProps, path: &Path) {
    match items.type_.as_deref() {
        Some("object") if items.x_kubernetes_map_type.as_deref() != Some("atomic") => check.invalid(
            &path.child("x-kubernetes-map-type"),
            &items.x_kubernetes_map_type,
            "must be atomic as item of a list with x-kubernetes-list-type=set",
        ),
        Some("array") if !matches!(items.x_kubernetes_list_type.as_deref(), None | Some("atomic")) => check
            .invalid(
                &path.child("x-kubernetes-list-type"),
                &items.x_kubernetes_list_type,
                "must be atomic as item of a list with x-kubernetes-list-type=set",
            ),
        _ => (),
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not` say more about what `whole` has, and bring in nothing of their own.
fn combinations(
    check: &mut Check,
    schema: &JSONSchemaProps,
    whole: &JSONSchemaProps,
    path: &Path,
    int_or_string: bool,
) {
    for (word, parts) in [
        ("allOf", &schema.all_of),
        ("anyOf", &schema.any_of),
        ("oneOf", &schema.one_of),
    ] {
        // The one place for types in a combination: what an int-or-string may be.
        let numbers =
            int_or_string && word == "anyOf" && is_int_or_string(parts.as_deref().unwrap_or_default());
        for (index, part) in parts.iter().flatten().enumerate() {
            let nested = int_or_string
                && word == "allOf"
                && index == 0
                && is_int_or_string(part.any_of.as_deref().unwrap_or_default());
            if !numbers && !nested {
                junctor(check, part, whole, &path.child(word).index(index));
            }
        }
    }
    if let Some(not) = &schema.not {
        junctor(check, not, whole, &path.child("not"));
    }
}

fn is_int_or_string(parts: &[JSONSchemaProps]) -> bool {
    let types: Vec<&str> = parts.iter().filter_map(|part| part.type_.as_deref()).collect();
    types == ["integer", "string"]
}

/// A part of a combination, which may say only what values are.
fn junctor(check: &mut Check, part: &JSONSchemaProps, whole: &JSONSchemaProps, path: &Path) {
    let on = |flag: Option<bool>| flag == Some(true);
    let text = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    for (field, set) in [
        ("type", text(&part.type_)),
        ("title", text(&part.title)),
        ("description", text(&part.description)),
        ("default", part.default.is_some()),
        ("additionalProperties", part.additional_properties.is_some()),
        ("x-kubernetes-list-type", part.x_kubernetes_list_type.is_some()),
        (
            "x-kubernetes-list-map-keys",
            part.x_kubernetes_list_map_keys.is_some(),
        ),
        ("x-kubernetes-map-type", part.x_kubernetes_map_type.is_some()),
    ] {
        if set {
            check.forbidden(&path.child(field), "must be empty to be structural");
        }
    }
    for (field, set) in [
        ("nullable", on(part.nullable)),
        (
            "x-kubernetes-preserve-unknown-fields",
            on(part.x_kubernetes_preserve_unknown_fields),
        ),
        (
            "x-kubernetes-embedded-resource",
            on(part.x_kubernetes_embedded_resource),
        ),
        ("x-kubernetes-int-or-string", on(part.x_kubernetes_int_or_string)),
    ] {
        if set {
            check.forbidden(&path.child(field), "must be false to be structural");
        }
    }
    forbidden_everywhere(check, part, path);
    check_value(check, part, path);
    for (name, inner) in part.properties.iter().flatten() {
        let path = path.child("properties").key(name);
        match field_of(whole, name) {
            Some(whole) => junctor(check, inner, whole, &path),
            None if whole.x_kubernetes_preserve_unknown_fields == Some(true) => {
                junctor(check, inner, inner, &path)
            }
            None => check.required(
                &path,
                "because it is defined in a combination, it must be defined outside of it too",
            ),
        }
    }
    match (&part.items, &whole.items) {
        (Some(JSONSchemaPropsOrArray::Schema(inner)), Some(JSONSchemaPropsOrArray::Schema(whole))) => {
            junctor(check, inner, whole, &path.child("items"));
        }
        (Some(JSONSchemaPropsOrArray::Schemas(_)), _) => {
            check.forbidden(
                &path.child("items"),
                "items must be a schema object and not an array",
            );
        }
        (Some(_), _) => check.required(
            &path.child("items"),
            "because it is defined in a combination, it must be defined outside of it too",
        ),
        (None, _) => (),
    }
    combinations(check, part, whole, path, false);
}

fn field_of<'s>(whole: &'s JSONSchemaProps, name: &str) -> Option<&'s JSONSchemaProps> {
    let named = whole.properties.as_ref().and_then(|all| all.get(name));
    named.or(match &whole.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(schema)) => Some(schema),
        Some(JSONSchemaPropsOrBool::Bool(_)) | None => None,
    })
}

/// A default has to be a value that its own schema takes.
fn check_default(check: &mut Check, schema: &JSONSchemaProps, path: &Path) {
    let Some(default) = &schema.default else { return };
    let at = path.child("default");
    let compiled = Schema::compile(schema);
    let mut value = default.0.clone();
    if let Value::Object(fields) = &mut value {
        if !prune_and_note(fields, &compiled).is_empty() {
            check.invalid(&at, &default.0, "must not have unknown fields");
        }
        compiled.set_defaults(fields);
    }
    for error in compiled.validate(&value, None) {
        let field = match error.field.as_str() {
            "<nil>" => at.clone(),
            field => at.child(field.to_owned()),
        };
        check.invalid(&field, error.value.clone(), error.detail.clone());
    }
}
