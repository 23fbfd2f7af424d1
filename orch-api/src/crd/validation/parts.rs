//! What a definition says beside its schemas: columns, subresources, selectable fields, conversion.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinitionSpec, CustomResourceSubresources,
    JSONSchemaProps, SelectableField,
};

use crate::crd::json_path::JsonPath;
use crate::kinds::{Check, Path};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 9] = [
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "name",
    "password",
];
const MAX_SELECTABLE: usize = 8;

pub(super) fn check_columns(check: &mut Check, columns: &[CustomResourceColumnDefinition], path: &Path) {
    for (index, column) in columns.iter().enumerate() {
        let path = path.index(index);
        check.present(&path.child("name"), &column.name);
        if column.type_.is_empty() {
            let why = format!("must be one of {}", COLUMN_TYPES.join(","));
            check.required(&path.child("type"), &why);
        } else if !COLUMN_TYPES.contains(&column.type_.as_str()) {
            let why = format!("must be one of {}", COLUMN_TYPES.join(","));
            check.invalid(&path.child("type"), &column.type_, why);
        }
        if let Some(format) = column.format.as_deref().filter(|format| !format.is_empty())
            && !COLUMN_FORMATS.contains(&format)
        {
            let why = format!("must be one of {}", COLUMN_FORMATS.join(","));
            check.invalid(&path.child("format"), format, why);
        }
        if column.json_path.is_empty() {
            check.required(&path.child("JSONPath"), "");
        } else {
            check_path(check, &column.json_path, &path.child("JSONPath"));
        }
    }
}

fn check_path(check: &mut Check, text: &str, path: &Path) -> Option<JsonPath> {
    match JsonPath::parse(text) {
        Ok(found) => Some(found),
        Err(why) => {
            check.invalid(path, text, format!("is an invalid JSON path: {why}"));
            None
        }
    }
}

pub(super) fn check_subresources(check: &mut Check, parts: &CustomResourceSubresources, path: &Path) {
    let Some(scale) = &parts.scale else { return };
    let path = path.child("scale");
    under(
        check,
        &scale.spec_replicas_path,
        &path.child("specReplicasPath"),
        &[".spec."],
        "should be a json path under .spec",
    );
    under(
        check,
        &scale.status_replicas_path,
        &path.child("statusReplicasPath"),
        &[".status."],
        "should be a json path under .status",
    );
    if let Some(selector) = scale
        .label_selector_path
        .as_deref()
        .filter(|path| !path.is_empty())
    {
        under(
            check,
            selector,
            &path.child("labelSelectorPath"),
            &[".spec.", ".status."],
            "should be a json path under either .spec or .status",
        );
    }
}

fn under(check: &mut Check, text: &str, path: &Path, roots: &[&str], why: &str) {
    if text.is_empty() {
        check.required(path, "");
        return;
    }
    let Some(found) = check_path(check, text, path) else {
        return;
    };
    if found.names().is_none() {
        check.invalid(path, text, "should be a json path of field names only");
    } else if !roots.iter().any(|root| text.starts_with(root)) {
        check.invalid(path, text, why);
    }
}

pub(super) fn check_selectable(
    check: &mut Check,
    fields: &[SelectableField],
    schema: Option<&JSONSchemaProps>,
    path: &Path,
) {
    if fields.len() > MAX_SELECTABLE {
        check.too_many(path, fields.len(), MAX_SELECTABLE);
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let path = path.index(index).child("jsonPath");
        let text = field.json_path.as_str();
        if text.is_empty() {
            check.required(&path, "");
            continue;
        }
        if seen.contains(&text) {
            check.duplicate(&path, text);
        }
        seen.push(text);
        let Some(found) = check_path(check, text, &path) else {
            continue;
        };
        let Some(names) = found.names().filter(|names| !names.is_empty()) else {
            check.invalid(&path, text, "is an invalid path: only field names are allowed");
            continue;
        };
        if names[0] == "metadata" {
            check.invalid(&path, text, "must not point to fields in metadata");
            continue;
        }
        match schema.and_then(|schema| leaf(schema, &names)) {
            None => check.invalid(&path, text, format!("is an invalid path: does not refer to a valid field in the schema: {text}")),
            Some(schema) if matches!(schema.type_.as_deref(), Some("string" | "boolean" | "integer")) => (),
            Some(_) => check.invalid(
                &path,
                text,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                 are allowed.",
            ),
        }
    }
}

fn leaf<'s>(schema: &'s JSONSchemaProps, names: &[&str]) -> Option<&'s JSONSchemaProps> {
    names
        .iter()
        .try_fold(schema, |schema, name| schema.properties.as_ref()?.get(*name))
}

pub(super) fn check_conversion(check: &mut Check, spec: &CustomResourceDefinitionSpec, path: &Path) {
    let Some(conversion) = &spec.conversion else {
        return;
    };
    check.one_of(
        &path.child("strategy"),
        &conversion.strategy,
        &["None", "Webhook"],
    );
    match conversion.strategy.as_str() {
        "Webhook" => check.forbidden(
            &path.child("strategy"),
            "conversion webhooks are not supported by this server yet",
        ),
        _ if conversion.webhook.is_some() => check.forbidden(
            &path.child("webhook"),
            "should not be set when strategy is not set to Webhook",
        ),
        _ => (),
    }
}
