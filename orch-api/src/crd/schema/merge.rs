//! The rules by which server-side apply merges custom resources, out of their schema.

use std::borrow::Cow;

use super::{Additional, ListType, Schema};
use crate::schema::{
    ANY, ATOMIC, Any, Field, List, ListKind, Map, PatchRule, Scalar, Struct, Type, TypeRef, object_meta,
};

/// The type of the objects of a version: `metadata` has the rules of all metadata, the rest those of the schema.
pub(crate) fn merge_type(schema: &Schema) -> Type {
    with_object_fields(schema)
}

fn with_object_fields(schema: &Schema) -> Type {
    let mut fields: Vec<Field> = schema
        .properties
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"))
        .map(|(name, inner)| field(name, of(inner).into(), Some(inner)))
        .collect();
    for name in ["apiVersion", "kind"] {
        fields.push(field(name, Type::Scalar(Scalar::String).into(), None));
    }
    fields.push(field("metadata", TypeRef::Static(object_meta()), None));
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Type::Struct(Struct {
        name: Cow::Borrowed(""),
        atomic: schema.atomic_map,
        fields: fields.into(),
        open: schema.preserve,
        overridden: false,
    })
}

/// Not `required`: an absent key of a list has no zero value here, as it has in Go's structs.
fn field(name: &str, ty: TypeRef, schema: Option<&Schema>) -> Field {
    let default = schema.and_then(|schema| schema.default.as_ref());
    Field {
        name: Cow::Owned(name.to_owned()),
        ty,
        required: false,
        default: default.and_then(|value| Some(Cow::Owned(value.as_str()?.to_owned()))),
        patch: PatchRule::default(),
    }
}

fn of(schema: &Schema) -> Type {
    use super::JsonType as T;
    if schema.int_or_string {
        return Type::Scalar(Scalar::IntOrString);
    }
    if schema.embedded {
        return with_object_fields(schema);
    }
    match schema.ty {
        Some(T::Array) => list(schema),
        Some(T::Object) | None if !schema.properties.is_empty() => Type::Struct(Struct {
            name: Cow::Borrowed(""),
            atomic: schema.atomic_map,
            fields: schema
                .properties
                .iter()
                .map(|(name, inner)| field(name, of(inner).into(), Some(inner)))
                .collect(),
            open: schema.preserve || matches!(schema.additional, Some(Additional::Any(true))),
            overridden: false,
        }),
        Some(T::Object) => match &schema.additional {
            Some(Additional::Schema(values)) => Type::Map(Map {
                values: of(values).into(),
                atomic: schema.atomic_map,
            }),
            Some(Additional::Any(_)) | None => any(schema),
        },
        Some(T::String) => Type::Scalar(Scalar::String),
        Some(T::Integer) => Type::Scalar(Scalar::Int64),
        Some(T::Number) => Type::Scalar(Scalar::Double),
        Some(T::Boolean) => Type::Scalar(Scalar::Boolean),
        None => any(schema),
    }
}

fn any(schema: &Schema) -> Type {
    Type::Any(Any {
        name: Cow::Borrowed(""),
        atomic: schema.atomic_map,
    })
}

fn list(schema: &Schema) -> Type {
    let items: TypeRef = schema
        .items
        .as_deref()
        .map_or(TypeRef::Static(&ANY), |items| of(items).into());
    let kind = match &schema.list_type {
        Some(ListType::Set) => ListKind::Set,
        Some(ListType::Map(keys)) => ListKind::Map(keys.iter().map(|key| Cow::Owned(key.clone())).collect()),
        Some(ListType::Atomic) | None => {
            return Type::List(List {
                items: TypeRef::Static(&ATOMIC),
                kind: ListKind::Atomic,
            });
        }
    };
    Type::List(List { items, kind })
}
