use serde_json::{Value, json};

use super::*;

pub(super) fn schema(schema: Value) -> Schema {
    Schema::compile(&serde_json::from_value(schema).unwrap())
}

fn errors(of: Value, value: Value) -> Vec<String> {
    let found = schema(of).validate(&value, None);
    found.iter().map(ToString::to_string).collect()
}

/// A schema of the field `x`, and what it says of a value there.
fn field(of: Value, value: Value) -> Vec<String> {
    errors(
        json!({"type": "object", "properties": {"x": of}}),
        json!({"x": value}),
    )
}

#[test]
fn values_are_judged_in_upstreams_words() {
    let table = [
        (
            json!({"type": "string"}),
            json!(1),
            "x: Invalid value: \"integer\": x in body must be of type string: \"integer\"",
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            "x: Invalid value: \"number\": x in body must be of type integer: \"number\"",
        ),
        (
            json!({"type": "boolean"}),
            json!(null),
            "x: Invalid value: \"null\": x in body must be of type boolean: \"null\"",
        ),
        (
            json!({"type": "array"}),
            json!({}),
            "x: Invalid value: \"object\": x in body must be of type array: \"object\"",
        ),
        (
            json!({"type": "integer", "minimum": 3}),
            json!(2),
            "x: Invalid value: 2: x in body should be greater than or equal to 3",
        ),
        (
            json!({"type": "integer", "maximum": 3, "exclusiveMaximum": true}),
            json!(3),
            "x: Invalid value: 3: x in body should be less than 3",
        ),
        (
            json!({"type": "integer", "multipleOf": 2}),
            json!(3),
            "x: Invalid value: 3: x in body should be a multiple of 2",
        ),
        (
            json!({"type": "string", "maxLength": 1}),
            json!("ab"),
            "x: Too long: may not be more than 1 bytes",
        ),
        (
            json!({"type": "string", "minLength": 1}),
            json!(""),
            "x: Invalid value: \"\": x in body should be at least 1 chars long",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            "x: Invalid value: \"b\": x in body should match '^a+$'",
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("1.2"),
            "x: Invalid value: \"1.2\": x in body must be of type ipv4: \"1.2\"",
        ),
        (
            json!({"type": "array", "minItems": 1}),
            json!([]),
            "x: Invalid value: 0: x in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "maxItems": 1}),
            json!([1, 2]),
            "x: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "object", "minProperties": 1}),
            json!({}),
            "x: Invalid value: 0: x in body should have at least 1 properties",
        ),
        (
            json!({"type": "object", "maxProperties": 0}),
            json!({"a": 1}),
            "x: Too many: 1: must have at most 0 items",
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            "x: Unsupported value: \"c\": supported values: \"a\", \"b\"",
        ),
        (
            json!({"type": "object", "required": ["a"]}),
            json!({}),
            "x.a: Required value",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "x: Invalid value: \"boolean\": x in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!(["a", 1]),
            "x[1]: Invalid value: \"integer\": x[1] in body must be of type string: \"integer\"",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"k": 1}),
            "x.k: Invalid value: \"integer\": x.k in body must be of type string: \"integer\"",
        ),
        (
            json!({"not": {"enum": [1]}}),
            json!(1),
            "<nil>: Invalid value: \"\": \"x\" must not validate the schema (not)",
        ),
        (
            json!({"type": "integer", "oneOf": [{"minimum": 1}, {"minimum": 2}]}),
            json!(3),
            "<nil>: Invalid value: \"\": \"x\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(3_000_000_000_u32),
            "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in x",
        ),
    ];
    for (schema, value, expected) in table {
        assert_eq!(
            field(schema.clone(), value.clone()),
            [expected],
            "{schema} {value}"
        );
    }
}

#[test]
fn fitting_values_pass() {
    let table = [
        (json!({"type": "string", "nullable": true}), json!(null)),
        (json!({"type": "integer"}), json!(2.0)),
        (json!({"type": "number"}), json!(2)),
        (json!({"x-kubernetes-int-or-string": true}), json!("50%")),
        (
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            json!(5),
        ),
        (json!({"type": "string", "maxLength": 1}), json!("ä")),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("2024-01-02T03:04:05Z"),
        ),
        (json!({"type": "string", "format": "duration"}), json!("1h30m")),
        (json!({"type": "string", "format": "nobody-knows"}), json!("x")),
        (
            json!({"type": "string", "enum": ["a", null], "nullable": true}),
            json!(null),
        ),
        (
            json!({"x-kubernetes-preserve-unknown-fields": true}),
            json!({"a": [1]}),
        ),
    ];
    for (schema, value) in table {
        assert_eq!(
            field(schema.clone(), value.clone()),
            Vec::<String>::new(),
            "{schema} {value}"
        );
    }
}

#[test]
fn formats_take_what_they_should() {
    for (format, good, bad) in [
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
        ("ipv6", "::1", "1.2.3.4"),
        ("cidr", "10.0.0.0/8", "10.0.0.0"),
        ("mac", "00:11:22:33:44:55", "00:11"),
        ("email", "a@example.com", "example.com"),
        ("hostname", "a.example.com", "-a"),
        ("byte", "aGk=", "a"),
        ("date", "2024-02-29", "2023-02-29"),
        ("datetime", "2024-02-29T00:00:00+01:00", "2024-02-29"),
        ("duration", "2 days", "2 moons"),
        ("uri", "https://example.com/x", "example"),
        ("hexcolor", "#a0b1c2", "#xyz"),
        ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("k8s-short-name", "abc", "a.b"),
    ] {
        let format = Format::parse(format).unwrap();
        assert!(format.fits(good), "{good} is a {}", format.as_str());
        assert!(!format.fits(bad), "{bad} is no {}", format.as_str());
    }
}

#[test]
fn what_an_update_leaves_is_not_judged_again() {
    let strict = schema(json!({"type": "object", "properties": {
        "a": {"type": "integer", "minimum": 5}, "b": {"type": "integer"},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "minimum": 5}},
        }},
    }}));
    let old = json!({"a": 1, "b": 1, "list": [{"k": "x", "v": 1}]});
    let new = json!({"a": 1, "b": 2, "list": [{"k": "y", "v": 5}, {"k": "x", "v": 1}]});
    assert!(strict.validate(&new, Some(&old)).is_empty());
    assert_eq!(strict.validate(&new, None).len(), 2);
    let worse = json!({"a": 2, "b": 1, "list": [{"k": "x", "v": 2}]});
    assert_eq!(strict.validate(&worse, Some(&old)).len(), 2);
}

#[test]
fn unknown_fields_go_where_nothing_keeps_them() {
    let schema = schema(json!({"type": "object", "properties": {
        "kept": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "strict": {"type": "object", "properties": {"a": {"type": "integer"}}},
        }},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
    }}));
    let mut object = json!({
        "metadata": {"name": "a"}, "gone": 1, "kept": {"any": 1, "strict": {"a": 1, "b": 2}}, "map": {"k": {"a": 1, "b": 2}},
        "list": [{"a": 1}, {"b": 2}], "pod": {"kind": "Pod", "metadata": {}, "status": {}},
    });
    let unknown = prune_and_note(object.as_object_mut().unwrap(), &schema);
    assert_eq!(
        unknown,
        ["gone", "kept.strict.b", "list[1].b", "map.k.b", "pod.status"]
    );
    assert_eq!(
        object,
        json!({
            "metadata": {"name": "a"}, "kept": {"any": 1, "strict": {"a": 1}}, "map": {"k": {"a": 1}},
            "list": [{"a": 1}, {}], "pod": {"kind": "Pod", "metadata": {}},
        })
    );
}

#[test]
fn defaults_fill_what_is_absent_or_wrongly_null() {
    let schema = schema(json!({"type": "object", "properties": {
        "a": {"type": "integer", "default": 1}, "n": {"type": "integer", "nullable": true, "default": 2},
        "p": {"type": "integer"},
        "o": {"type": "object", "default": {}, "properties": {"x": {"type": "string", "default": "y"}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer", "default": 3}}}},
    }}));
    let mut object = json!({"a": null, "n": null, "p": null, "list": [{}, {"x": 4}]});
    let fields = object.as_object_mut().unwrap();
    schema.drop_nulls(fields);
    schema.set_defaults(fields);
    assert_eq!(
        object,
        json!({"a": 1, "n": null, "o": {"x": "y"}, "list": [{"x": 3}, {"x": 4}]})
    );
}

#[test]
fn embedded_objects_have_a_type() {
    let schema = schema(json!({"type": "object", "properties": {
        "job": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
    }}));
    let check = |job: Value| {
        let mut errors = orch_core::field::ErrorList::new();
        schema.check_embedded(&orch_core::field::Path::root(), &json!({"job": job}), &mut errors);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(check(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})).is_empty());
    assert_eq!(
        check(json!({"kind": "", "metadata": {"labels": 5}})),
        [
            "job.apiVersion: Required value: must not be empty",
            "job.kind: Required value: must not be empty",
            "job.metadata: Invalid value: {\"labels\":5}: json: cannot unmarshal number into Go struct field ObjectMeta.labels of \
             type a map",
        ]
    );
}

#[test]
fn a_deep_object_is_walked_to_its_end() {
    let mut inner = json!({"type": "integer"});
    let mut value = json!("wrong");
    for _ in 0..50 {
        inner = json!({"type": "object", "properties": {"a": inner}});
        value = json!({"a": value});
    }
    assert_eq!(errors(inner, value).len(), 1);
}

#[test]
fn the_errors_of_one_object_are_bounded() {
    let many: Vec<Value> = (0..100_000).map(Value::from).collect();
    let found = field(json!({"type": "array", "items": {"type": "string"}}), many.into());
    assert_eq!(found.len(), 100);
}
