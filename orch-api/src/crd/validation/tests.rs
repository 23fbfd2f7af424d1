use serde_json::{Value, json};

use super::*;
use crate::crd::CustomResourceDefinitions;
use crate::strategy::Kind;

fn definition(schema: &Value) -> CustomResourceDefinition {
    let mut definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "names": {"plural": "widgets", "kind": "Widget"}, "scope": "Cluster",
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    }))
    .unwrap();
    CustomResourceDefinitions::default(&mut definition);
    CustomResourceDefinitions::prepare_for_create(&mut definition);
    definition
}

fn faults(definition: &CustomResourceDefinition) -> Vec<String> {
    validate(definition).iter().map(ToString::to_string).collect()
}

/// What is wrong with a schema of the field `x`, below that field.
fn field(schema: Value) -> Vec<String> {
    let root = "spec.versions[0].schema.openAPIV3Schema.properties[x].";
    let whole = json!({"type": "object", "properties": {"x": schema}});
    let short = |fault: String| fault.strip_prefix(root).map_or(fault.clone(), str::to_owned);
    faults(&definition(&whole)).into_iter().map(short).collect()
}

#[test]
fn a_small_definition_is_defaulted_and_fine() {
    let definition = definition(&json!({"type": "object"}));
    assert_eq!(faults(&definition), Vec::<String>::new());
    let names = &definition.spec.names;
    assert_eq!(
        (names.singular.as_deref(), names.list_kind.as_deref()),
        (Some("widget"), Some("WidgetList"))
    );
    assert_eq!(definition.spec.conversion.unwrap().strategy, "None");
}

#[test]
fn schemas_have_to_be_structural() {
    let table = [
        (
            json!({}),
            "type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "array", "items": {}}),
            "items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({"type": "array"}),
            "items: Required value: must be specified",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            "uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            json!({"type": "object", "$ref": "#/x"}),
            "$ref: Forbidden: $ref is not supported",
        ),
        (
            json!({"type": "object", "additionalProperties": false}),
            "additionalProperties: Forbidden: additionalProperties cannot be set to false",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            "additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            json!({"type": "integer", "x-kubernetes-int-or-string": true}),
            "type: Invalid value: \"integer\": must be empty if x-kubernetes-int-or-string is true",
        ),
        (
            json!({"type": "string", "anyOf": [{"type": "string"}]}),
            "anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "allOf": [{"properties": {"a": {"minLength": 1}}}]}),
            "allOf[0].properties[a]: Required value: because it is defined in a combination, it must be defined outside of it too",
        ),
        (
            json!({"type": "string", "not": {"default": "a"}}),
            "not.default: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "string", "x-kubernetes-list-type": "set"}),
            "type: Invalid value: \"string\": must be array if x-kubernetes-list-type is specified",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                "type": "object", "properties": {"k": {"type": "string"}},
            }}),
            "items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have \
             a default or be a required property",
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            "properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without \
             x-kubernetes-preserve-unknown-fields",
        ),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
            "x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
        (
            json!({"type": "integer", "default": "a"}),
            "default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "object", "default": {"b": 1}, "properties": {"a": {"type": "string"}}}),
            "default: Invalid value: {\"b\":1}: must not have unknown fields",
        ),
        (
            json!({"type": "object", "x-kubernetes-validations": [{"rule": "true"}]}),
            "x-kubernetes-validations: Forbidden: rules are not supported by this server yet",
        ),
    ];
    for (schema, fault) in table {
        assert_eq!(field(schema.clone()), [fault], "{schema}");
    }
    let pattern = field(json!({"type": "string", "pattern": "["}));
    assert!(
        pattern[0]
            .starts_with("pattern: Invalid value: \"[\": must be a valid regular expression, but isn't: "),
        "{pattern:?}"
    );
}

#[test]
fn structural_schemas_are_taken() {
    for schema in [
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^a"}),
        json!({"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"maximum": 3}]}),
        json!({"x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "oneOf": [{"required": ["a"]}, {"properties": {"a": {"enum": ["b"]}}}]}),
        json!({"type": "object", "default": {}, "properties": {"a": {"type": "integer", "default": 3, "minimum": 2}}}),
        json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
    ] {
        assert_eq!(field(schema.clone()), Vec::<String>::new(), "{schema}");
    }
}

#[test]
fn parts_are_checked() {
    let mut wrong = definition(&json!({"type": "object", "properties": {"spec": {"type": "object"}}}));
    wrong.spec.versions[0].additional_printer_columns =
        serde_json::from_value(json!([{"name": "", "type": "text", "jsonPath": ".a["}])).unwrap();
    wrong.spec.versions[0].subresources = serde_json::from_value(
        json!({"scale": {"specReplicasPath": ".status.a", "statusReplicasPath": ".status.a[0]"}}),
    )
    .unwrap();
    wrong.spec.versions[0].selectable_fields = serde_json::from_value(
        json!([{"jsonPath": ".spec"}, {"jsonPath": ".metadata.name"}, {"jsonPath": ".nowhere"}]),
    )
    .unwrap();
    wrong.spec.versions[0].deprecation_warning = Some("old".into());
    wrong.spec.conversion = serde_json::from_value(json!({"strategy": "Webhook"})).unwrap();
    let fields: Vec<String> = validate(&wrong).iter().map(|fault| fault.field.clone()).collect();
    let version = |field: &str| format!("spec.versions[0].{field}");
    assert_eq!(
        fields,
        [
            version("deprecationWarning"),
            version("additionalPrinterColumns[0].name"),
            version("additionalPrinterColumns[0].type"),
            version("additionalPrinterColumns[0].JSONPath"),
            version("subresources.scale.specReplicasPath"),
            version("subresources.scale.statusReplicasPath"),
            version("selectableFields[0].jsonPath"),
            version("selectableFields[1].jsonPath"),
            version("selectableFields[2].jsonPath"),
            "spec.conversion.strategy".to_owned(),
        ]
    );
}

#[test]
fn groups_of_kubernetes_need_an_approval() {
    let mut own = definition(&json!({"type": "object"}));
    own.spec.group = "x.k8s.io".into();
    own.metadata.name = Some("widgets.x.k8s.io".into());
    assert_eq!(
        validate(&own).iter().next().unwrap().field,
        "metadata.annotations[api-approved.kubernetes.io]"
    );
    own.metadata.annotations =
        Some([("api-approved.kubernetes.io".into(), "unapproved, a trial".into())].into());
    assert!(validate(&own).is_empty());
}

#[test]
fn a_stored_version_may_not_be_dropped() {
    let old = definition(&json!({"type": "object"}));
    let mut new = old.clone();
    new.spec.versions[0].name = "v2".into();
    CustomResourceDefinitions::prepare_for_update(&mut new, &old);
    assert_eq!(new.status.clone().unwrap().stored_versions.unwrap(), ["v1", "v2"]);
    let faults = validate_update(&new, &old);
    let fault = faults.iter().next().unwrap().to_string();
    assert!(
        fault.starts_with("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions;"),
        "{fault}"
    );
}
