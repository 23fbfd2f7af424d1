//! The definitions of types, in the dialects of v2 and v3.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::crd::Custom;
use crate::schema::{Field, List, ListKind, Scalar, Struct, Type, builtin_root, builtin_roots, object_meta};

pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The version of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

/// The type of the metadata of lists.
fn list_meta() -> Option<&'static Type> {
    builtin_root("", "v1", "PodList")?.field("metadata")
}

/// Collects the definitions which a document refers to.
pub(super) struct Definitions<'t> {
    dialect: Dialect,
    done: BTreeMap<String, Value>,
    /// Referred to and not yet written.
    open: BTreeMap<String, &'t Type>,
    kinds: BTreeMap<&'static str, Vec<(&'static str, &'static str, &'static str)>>,
}

impl<'t> Definitions<'t> {
    pub(super) fn new(dialect: Dialect) -> Self {
        let mut kinds: BTreeMap<&'static str, Vec<_>> = BTreeMap::new();
        for (group, version, kind, ty) in builtin_roots() {
            if let Some(name) = ty.name() {
                kinds.entry(name).or_default().push((*group, *version, *kind));
            }
        }
        Self {
            dialect,
            done: BTreeMap::new(),
            open: BTreeMap::new(),
            kinds,
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// All definitions that were referred to, and those which they refer to.
    pub(super) fn finish(mut self) -> Map<String, Value> {
        while let Some((name, ty)) = self.open.pop_first() {
            let definition = self.definition(ty);
            self.done.insert(name, definition);
        }
        self.done.into_iter().collect()
    }

    /// A reference to the body of a patch.
    pub(super) fn patch_reference(&mut self) -> Value {
        self.done
            .entry(PATCH.to_owned())
            .or_insert_with(|| json!({"type": "object"}));
        json!({"$ref": self.address(PATCH)})
    }

    /// The schema of a value of this type: a reference if the type has a name.
    pub(super) fn schema(&mut self, ty: &'t Type) -> Value {
        if let Some(name) = ty.name() {
            if !self.done.contains_key(name) {
                self.open.entry(name.to_owned()).or_insert(ty);
            }
            return json!({"$ref": self.address(name)});
        }
        self.definition(ty)
    }

    /// A reference to a custom resource, or to a list of them.
    pub(super) fn custom(&mut self, custom: &Custom, list: bool) -> Value {
        let name = custom.definition_name(list);
        if !self.done.contains_key(&name) {
            let metadata = if list { list_meta() } else { Some(object_meta()) };
            let metadata = metadata.map_or(json!({"type": "object"}), |ty| self.schema(ty));
            let definition = if list {
                let item = self.custom(custom, false);
                custom.list_schema(&item, &metadata)
            } else {
                custom.schema(self.dialect == Dialect::V2, &metadata)
            };
            self.done.insert(name.clone(), definition);
        }
        json!({"$ref": self.address(&name)})
    }

    fn address(&self, name: &str) -> String {
        match self.dialect {
            Dialect::V2 => format!("#/definitions/{name}"),
            Dialect::V3 => format!("#/components/schemas/{name}"),
        }
    }

    fn definition(&mut self, ty: &'t Type) -> Value {
        match ty {
            Type::Scalar(scalar) => self.scalar(*scalar),
            Type::Struct(s) => self.structure(s),
            Type::Map(map) => {
                let mut schema = json!({"type": "object", "additionalProperties": self.schema(&map.values)});
                if map.atomic {
                    schema["x-kubernetes-map-type"] = "atomic".into();
                }
                schema
            }
            Type::List(list) => self.list(list),
            // Of the values without a shape, only those that may be anything but an object have no type.
            Type::Any(any) if any.atomic && any.name.contains("JSON") => json!({}),
            Type::Any(_) => json!({"type": "object"}),
        }
    }

    fn scalar(&self, scalar: Scalar) -> Value {
        match (scalar, self.dialect) {
            (Scalar::String, _) | (Scalar::Quantity, Dialect::V2) => json!({"type": "string"}),
            (Scalar::Quantity, Dialect::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            (Scalar::Bytes, _) => json!({"type": "string", "format": "byte"}),
            (Scalar::Time | Scalar::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
            (Scalar::Int32, _) => json!({"type": "integer", "format": "int32"}),
            (Scalar::Int64, _) => json!({"type": "integer", "format": "int64"}),
            (Scalar::Double, _) => json!({"type": "number", "format": "double"}),
            (Scalar::Boolean, _) => json!({"type": "boolean"}),
            (Scalar::IntOrString, Dialect::V2) => json!({"type": "string", "format": "int-or-string"}),
            (Scalar::IntOrString, Dialect::V3) => {
                json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
            }
        }
    }

    fn structure(&mut self, s: &'t Struct) -> Value {
        let mut schema = json!({"type": "object"});
        let mut properties = Map::new();
        let mut required = BTreeSet::new();
        for field in s.fields.iter() {
            properties.insert(field.name.to_string(), self.property(field));
            if field.required {
                required.insert(&*field.name);
            }
        }
        if !properties.is_empty() {
            schema["properties"] = Value::Object(properties);
        }
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if s.atomic != s.overridden {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(kinds) = self.kinds.get(&*s.name) {
            let gvk = |(group, version, kind): &_| json!({"group": group, "version": version, "kind": kind});
            schema["x-kubernetes-group-version-kind"] = kinds.iter().map(gvk).collect();
        }
        schema
    }

    fn property(&mut self, field: &'t Field) -> Value {
        let mut extensions = Map::new();
        let strategy: Vec<&str> = [
            (field.patch.merge, "merge"),
            (field.patch.replace, "replace"),
            (field.patch.retain_keys, "retainKeys"),
        ]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect();
        if !strategy.is_empty() {
            extensions.insert(
                "x-kubernetes-patch-strategy".to_owned(),
                strategy.join(",").into(),
            );
        }
        if let Some(key) = &field.patch.merge_key {
            extensions.insert("x-kubernetes-patch-merge-key".to_owned(), key.as_ref().into());
        }
        if let Type::Struct(s) = &*field.ty
            && s.overridden
        {
            let relation = if s.atomic { "atomic" } else { "granular" };
            extensions.insert("x-kubernetes-map-type".to_owned(), relation.into());
        }
        let mut schema = self.schema(&field.ty);
        if self.dialect == Dialect::V3 {
            if let Some(default) = &field.default {
                extensions.insert("default".to_owned(), default.as_ref().into());
            }
            if !extensions.is_empty() && schema.get("$ref").is_some() {
                schema = json!({"allOf": [schema]});
            }
        }
        if let Value::Object(fields) = &mut schema {
            fields.extend(extensions);
        }
        schema
    }

    fn list(&mut self, list: &'t List) -> Value {
        let mut schema = json!({"type": "array", "items": self.schema(&list.items)});
        let kind = match &list.kind {
            ListKind::Atomic => "atomic",
            ListKind::Set => "set",
            ListKind::Map(keys) => {
                schema["x-kubernetes-list-map-keys"] = keys.iter().map(|key| key.as_ref()).collect();
                "map"
            }
        };
        schema["x-kubernetes-list-type"] = kind.into();
        schema
    }
}
