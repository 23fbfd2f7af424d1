//! What the API server knows of the shape of objects: field names, scalar types, and above all the merge rules that
//! strategic merge patch and server-side apply follow.
//!
//! The built-in kinds are static tables (`builtin`), which cost nothing until they are looked at. Types of custom
//! resources are built at run time from the same parts: each name is a [`Cow`] and each reference a [`TypeRef`] that
//! is either static or shared.
//!
//! ```
//! use orch_api::schema::{self, ListKind, Type};
//!
//! let deployment = schema::root("apps", "v1", "Deployment");
//! let ports = deployment.at(&["spec", "template", "spec", "containers", "*", "ports"]).unwrap();
//! let Type::List(list) = ports else { panic!() };
//! assert!(matches!(&list.kind, ListKind::Map(keys) if keys.as_ref() == ["containerPort", "protocol"]));
//! ```

mod builtin;
mod conform;

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;

pub use conform::{Mismatch, conform};

/// The shape of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Type {
    /// A value without parts.
    Scalar(Scalar),
    /// An object with named fields.
    Struct(Struct),
    /// An object whose keys are data.
    Map(Map),
    /// An array.
    List(List),
    /// A value of no declared shape: objects merge by key, arrays are replaced.
    Any(Any),
}

/// The kinds of scalar which the wire knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scalar {
    /// A string.
    String,
    /// Base64 in a string.
    Bytes,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating-point number.
    Double,
    /// A boolean.
    Boolean,
    /// A quantity such as `100m`, written as a string or a number.
    Quantity,
    /// An integer, or a string such as `25%` or a port's name.
    IntOrString,
}

/// An object with named fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struct {
    /// The definition's name in OpenAPI (`io.k8s.api.core.v1.PodSpec`); empty for an anonymous one.
    pub name: Cow<'static, str>,
    /// Whether the object is owned and replaced as a whole (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// The fields, sorted by name.
    pub fields: Cow<'static, [Field]>,
    /// Whether fields outside of `fields` are kept (`x-kubernetes-preserve-unknown-fields`).
    pub open: bool,
    /// Whether `atomic` is a matter of the field that leads here, while the definition of this name says otherwise.
    pub overridden: bool,
}

/// An object whose keys are data, such as labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// The type of each value.
    pub values: TypeRef,
    /// Whether the map is owned and replaced as a whole.
    pub atomic: bool,
}

/// An array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The type of each item.
    pub items: TypeRef,
    /// How apply tells the items apart.
    pub kind: ListKind,
}

/// How apply tells the items of a list apart (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListKind {
    /// Not at all: the list has one owner.
    Atomic,
    /// By value: each value has its owners.
    Set,
    /// By the values of these fields (`x-kubernetes-list-map-keys`).
    Map(Cow<'static, [Cow<'static, str>]>),
}

/// A value of no declared shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Any {
    /// The definition's name in OpenAPI; empty for an anonymous one.
    pub name: Cow<'static, str>,
    /// Whether the value is owned and replaced as a whole.
    pub atomic: bool,
}

/// A field of a [`Struct`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its JSON name.
    pub name: Cow<'static, str>,
    /// The type of its value.
    pub ty: TypeRef,
    /// Whether upstream's document lists it as required.
    pub required: bool,
    /// What an absent key field of a list counts as.
    pub default: Option<Cow<'static, str>>,
    /// How strategic merge patch treats it.
    pub patch: PatchRule,
}

/// How strategic merge patch treats a field (`x-kubernetes-patch-strategy` and `-merge-key`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchRule {
    /// Lists are merged, not replaced.
    pub merge: bool,
    /// The object is replaced, not merged.
    pub replace: bool,
    /// `$retainKeys` is honoured.
    pub retain_keys: bool,
    /// The field that tells the items of a merged list of objects apart.
    pub merge_key: Option<Cow<'static, str>>,
}

/// A type that is static (built in) or shared (made at run time).
#[derive(Clone)]
pub enum TypeRef {
    /// One of the tables of this crate.
    Static(&'static Type),
    /// Made at run time, such as from the schema of a custom resource.
    Shared(Arc<Type>),
}

impl Deref for TypeRef {
    type Target = Type;

    fn deref(&self) -> &Type {
        match self {
            Self::Static(ty) => ty,
            Self::Shared(ty) => ty,
        }
    }
}

impl From<Type> for TypeRef {
    fn from(ty: Type) -> Self {
        Self::Shared(Arc::new(ty))
    }
}

impl std::fmt::Debug for TypeRef {
    /// Named types print their name only: schemas refer to themselves.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (**self).name() {
            Some(name) => f.write_str(name),
            None => (**self).fmt(f),
        }
    }
}

impl PartialEq for TypeRef {
    /// Named types are equal by name, since schemas refer to themselves.
    fn eq(&self, other: &Self) -> bool {
        match ((**self).name(), (**other).name()) {
            (Some(a), Some(b)) => a == b,
            (None, None) => **self == **other,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl Eq for TypeRef {}

/// A value of no declared shape, whose objects merge by key and whose arrays are replaced.
pub static ANY: Type = Type::Any(Any {
    name: Cow::Borrowed(""),
    atomic: false,
});

/// A value of no declared shape that is owned and replaced as a whole.
pub static ATOMIC: Type = Type::Any(Any {
    name: Cow::Borrowed(""),
    atomic: true,
});

/// The type of a built-in kind, or [`ANY`] with metadata for one that is not built in.
#[must_use]
pub fn root(group: &str, version: &str, kind: &str) -> &'static Type {
    builtin_root(group, version, kind).unwrap_or(&builtin::UNKNOWN_OBJECT)
}

/// The type of a built-in kind.
#[must_use]
pub fn builtin_root(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    let roots = builtin::ROOTS;
    let found = roots.binary_search_by(|(g, v, k, _)| (*g, *v, *k).cmp(&(group, version, kind)));
    found.ok().map(|i| roots[i].3)
}

/// Every built-in root: group, version, kind, type. Sorted.
#[must_use]
pub fn builtin_roots() -> &'static [(&'static str, &'static str, &'static str, &'static Type)] {
    builtin::ROOTS
}

/// The type of `metadata`.
#[must_use]
pub fn object_meta() -> &'static Type {
    builtin::object_meta()
}

impl Type {
    /// The type of a field of this object: a struct's field, or a map's value.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Type> {
        match self {
            Self::Struct(s) => match s.field(name) {
                Some(field) => Some(&field.ty),
                None if s.open => Some(&ANY),
                None => None,
            },
            Self::Map(map) => Some(&map.values),
            Self::Any(any) => Some(any.inner()),
            Self::Scalar(_) | Self::List(_) => None,
        }
    }

    /// The type of the items of this list.
    #[must_use]
    pub fn items(&self) -> Option<&Type> {
        match self {
            Self::List(list) => Some(&list.items),
            Self::Any(_) => Some(&ATOMIC),
            Self::Scalar(_) | Self::Struct(_) | Self::Map(_) => None,
        }
    }

    /// The type at a path of field names, with `*` for the items of a list.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&Type> {
        path.iter().try_fold(self, |ty, step| match *step {
            "*" => ty.items(),
            name => ty.field(name),
        })
    }

    /// How strategic merge patch treats a field of this object.
    #[must_use]
    pub fn patch_rule(&self, name: &str) -> Option<&PatchRule> {
        match self {
            Self::Struct(s) => s.field(name).map(|field| &field.patch),
            Self::Map(_) | Self::Any(_) | Self::Scalar(_) | Self::List(_) => None,
        }
    }

    /// The name of the definition, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let name = match self {
            Self::Struct(s) => &s.name,
            Self::Any(any) => &any.name,
            Self::Scalar(scalar) => return scalar.definition(),
            Self::Map(_) | Self::List(_) => return None,
        };
        (!name.is_empty()).then_some(name)
    }

    /// Whether values of this type are owned and replaced as a whole.
    #[must_use]
    pub fn is_atomic(&self) -> bool {
        match self {
            Self::Scalar(_) => true,
            Self::Struct(s) => s.atomic,
            Self::Map(map) => map.atomic,
            Self::List(list) => list.kind == ListKind::Atomic,
            Self::Any(any) => any.atomic,
        }
    }
}

impl Struct {
    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let found = self.fields.binary_search_by(|field| (*field.name).cmp(name));
        found.ok().map(|i| &self.fields[i])
    }
}

impl Any {
    /// The type of what is inside of such a value.
    #[must_use]
    pub fn inner(&self) -> &'static Type {
        if self.atomic { &ATOMIC } else { &ANY }
    }
}

impl Field {
    /// What an absent field counts as where it is a key of a list: the default of the field, or the zero value of a
    /// required one.
    #[must_use]
    pub fn key_default(&self) -> Option<Value> {
        if let Some(text) = &self.default {
            return Some(Value::String(text.to_string()));
        }
        match &*self.ty {
            Type::Scalar(scalar) if self.required => Some(scalar.zero()),
            _ => None,
        }
    }
}

impl Scalar {
    /// The value of an unset Go field of this type.
    fn zero(self) -> Value {
        match self {
            Self::Int32 | Self::Int64 | Self::Double | Self::IntOrString => Value::from(0),
            Self::Boolean => Value::Bool(false),
            Self::Quantity => Value::from("0"),
            Self::String | Self::Bytes | Self::Time | Self::MicroTime => Value::from(""),
        }
    }

    /// The named OpenAPI definition of this scalar, if upstream gives it one.
    #[must_use]
    pub fn definition(self) -> Option<&'static str> {
        match self {
            Self::Time => Some("io.k8s.apimachinery.pkg.apis.meta.v1.Time"),
            Self::MicroTime => Some("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"),
            Self::Quantity => Some("io.k8s.apimachinery.pkg.api.resource.Quantity"),
            Self::IntOrString => Some("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
            Self::String | Self::Bytes | Self::Int32 | Self::Int64 | Self::Double | Self::Boolean => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(group: &str, kind: &str, path: &[&str]) -> &'static Type {
        root(group, "v1", kind)
            .at(path)
            .unwrap_or_else(|| panic!("{kind} {path:?}"))
    }

    fn keys(ty: &Type) -> Vec<&str> {
        match ty {
            Type::List(List {
                kind: ListKind::Map(keys),
                ..
            }) => keys.iter().map(|k| &**k).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn apply_keys_and_merge_keys_differ_where_upstream_differs() {
        let container = path("", "Pod", &["spec", "containers", "*"]);
        assert_eq!(
            keys(container.field("ports").unwrap()),
            ["containerPort", "protocol"]
        );
        assert_eq!(
            container.patch_rule("ports").unwrap().merge_key.as_deref(),
            Some("containerPort")
        );
        let service = path("", "Service", &["spec"]);
        assert_eq!(keys(service.field("ports").unwrap()), ["port", "protocol"]);
        assert_eq!(
            service.patch_rule("ports").unwrap().merge_key.as_deref(),
            Some("port")
        );
        let pod = path("", "Pod", &["spec"]);
        assert_eq!(
            keys(pod.field("topologySpreadConstraints").unwrap()),
            ["topologyKey", "whenUnsatisfiable"]
        );
        assert!(pod.patch_rule("volumes").unwrap().retain_keys);
    }

    #[test]
    fn selectors_and_references_are_atomic() {
        assert!(path("apps", "Deployment", &["spec", "selector"]).is_atomic());
        assert!(path("", "Service", &["spec", "selector"]).is_atomic());
        assert!(path("", "Pod", &["spec", "nodeSelector"]).is_atomic());
        assert!(path("", "Event", &["involvedObject"]).is_atomic());
        assert!(path("rbac.authorization.k8s.io", "RoleBinding", &["roleRef"]).is_atomic());
        assert!(!path("", "PersistentVolume", &["spec", "claimRef"]).is_atomic());
        assert!(!path("", "ConfigMap", &["data"]).is_atomic());
    }

    #[test]
    fn an_absent_protocol_is_tcp_as_a_key() {
        let Type::Struct(port) = path("", "Service", &["spec", "ports", "*"]) else {
            panic!()
        };
        assert_eq!(
            port.field("protocol").unwrap().key_default(),
            Some(Value::from("TCP"))
        );
        assert_eq!(port.field("port").unwrap().key_default(), Some(Value::from(0)));
        assert_eq!(port.field("name").unwrap().key_default(), None);
    }

    #[test]
    fn every_struct_is_sorted_by_field_name() {
        fn check(ty: &Type, seen: &mut std::collections::HashSet<String>) {
            match ty {
                Type::Struct(s) => {
                    assert!(s.fields.is_sorted_by(|a, b| a.name < b.name), "{}", s.name);
                    if seen.insert(s.name.to_string()) {
                        s.fields.iter().for_each(|field| check(&field.ty, seen));
                    }
                }
                Type::Map(map) => check(&map.values, seen),
                Type::List(list) => check(&list.items, seen),
                Type::Scalar(_) | Type::Any(_) => {}
            }
        }
        let mut seen = std::collections::HashSet::new();
        builtin_roots().iter().for_each(|(.., ty)| check(ty, &mut seen));
        assert!(seen.len() > 700, "{}", seen.len());
        assert!(builtin_roots().is_sorted_by(|a, b| (a.0, a.1, a.2) < (b.0, b.1, b.2)));
    }

    #[test]
    fn an_unknown_kind_keeps_the_rules_of_metadata() {
        let ty = root("example.com", "v1", "Widget");
        assert_eq!(keys(ty.at(&["metadata", "ownerReferences"]).unwrap()), ["uid"]);
        assert!(!ty.at(&["spec", "anything"]).unwrap().is_atomic());
    }
}
