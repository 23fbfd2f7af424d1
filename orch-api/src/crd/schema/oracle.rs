//! The walker against the crate `jsonschema`, on what both know.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::Schema;

/// No nulls, of which upstream looks only at the type, and no 1.0, which is an integer here and not in draft 4.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-4i64..5).prop_map(Value::from),
        (-4i32..5).prop_map(|whole| Value::from(f64::from(whole) + 0.5)),
        "[ab]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

/// One keyword, or a few that belong together.
fn keyword(inner: impl Strategy<Value = Value> + Clone + 'static) -> impl Strategy<Value = Value> {
    let types = prop::sample::select(vec!["object", "array", "string", "integer", "number", "boolean"]);
    let some = prop::collection::vec(inner.clone(), 1..3);
    prop_oneof![
        types.prop_map(|ty| json!({"type": ty})),
        (-3i64..4, any::<bool>())
            .prop_map(|(limit, exclusive)| json!({"minimum": limit, "exclusiveMinimum": exclusive})),
        (-3i64..4, any::<bool>())
            .prop_map(|(limit, exclusive)| json!({"maximum": limit, "exclusiveMaximum": exclusive})),
        (1i64..4).prop_map(|factor| json!({"multipleOf": factor})),
        (0i64..3, 0i64..3).prop_map(|(min, max)| json!({"minLength": min, "maxLength": max})),
        (0i64..3, 0i64..3).prop_map(|(min, max)| json!({"minItems": min, "maxItems": max})),
        (0i64..3, 0i64..3).prop_map(|(min, max)| json!({"minProperties": min, "maxProperties": max})),
        prop::sample::select(vec!["^a", "b$", "^(a|b)*$", "aa"])
            .prop_map(|pattern| json!({"pattern": pattern})),
        prop::collection::vec(values(), 1..4).prop_map(|all| json!({"enum": all})),
        prop::collection::btree_set("[abc]", 1..3).prop_map(|names| json!({"required": names})),
        inner.clone().prop_map(|schema| json!({"items": schema})),
        prop::collection::btree_map("[abc]", inner.clone(), 1..3).prop_map(|all| json!({"properties": all})),
        inner
            .clone()
            .prop_map(|schema| json!({"additionalProperties": schema})),
        Just(json!({"additionalProperties": false})),
        some.clone().prop_map(|all| json!({"allOf": all})),
        some.clone().prop_map(|all| json!({"anyOf": all})),
        some.prop_map(|all| json!({"oneOf": all})),
        inner.prop_map(|schema| json!({"not": schema})),
    ]
}

fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop::sample::select(vec![
        json!({}),
        json!({"type": "string"}),
        json!({"type": "integer", "minimum": 1}),
    ]);
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop::collection::vec(keyword(inner.boxed()), 1..4).prop_map(|parts| {
            let fields = parts.into_iter().filter_map(|part| match part {
                Value::Object(fields) => Some(fields),
                _ => None,
            });
            Value::Object(fields.flatten().collect())
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_walker_agrees_with_another_validator(schema in schemas(), value in values()) {
        let oracle = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft4)
            .build(&schema)
            .unwrap();
        let compiled = Schema::compile(&serde_json::from_value(schema.clone()).unwrap());
        let errors = compiled.validate(&value, None);
        prop_assert_eq!(errors.is_empty(), oracle.is_valid(&value), "{} {} {:?}", schema, value, errors);
    }
}
