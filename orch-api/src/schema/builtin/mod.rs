//! The types of Kubernetes' built-in kinds. The tables are generated (`generate.py`), this frame is not.

use super::{Any, Field, List, ListKind, Map, PatchRule, Scalar, Struct, Type, TypeRef};
use std::borrow::Cow;

macro_rules! scalars {
    ($($name:ident $scalar:ident),*) => {
        $(static $name: Type = Type::Scalar(Scalar::$scalar);)*
    };
}

scalars!(
    STRING String, BYTES Bytes, TIME Time, MICRO_TIME MicroTime, INT32 Int32, INT64 Int64, DOUBLE Double,
    BOOLEAN Boolean, QUANTITY Quantity, INT_OR_STRING IntOrString
);

macro_rules! structure {
    ($static:ident, $name:literal, $relation:ident, [$($fields:tt)*]) => {
        pub(crate) static $static: super::Type = super::Type::Struct(super::Struct {
            name: super::Cow::Borrowed($name),
            atomic: relation!($relation),
            fields: super::Cow::Borrowed(&[$($fields)*]),
            open: false,
            overridden: false,
        });
    };
}

/// The same fields as another type, with the other map type.
macro_rules! structure_as {
    ($static:ident, $other:ident, $relation:ident) => {
        pub(crate) static $static: super::Type = match &$other {
            super::Type::Struct(super::Struct {
                name: super::Cow::Borrowed(name),
                fields: super::Cow::Borrowed(fields),
                ..
            }) => super::Type::Struct(super::Struct {
                name: super::Cow::Borrowed(name),
                atomic: relation!($relation),
                fields: super::Cow::Borrowed(fields),
                open: false,
                overridden: true,
            }),
            _ => panic!("the original is a static struct"),
        };
    };
}

macro_rules! any {
    ($static:ident, $name:literal, $relation:ident) => {
        pub(crate) static $static: super::Type = super::Type::Any(super::Any {
            name: super::Cow::Borrowed($name),
            atomic: relation!($relation),
        });
    };
}

macro_rules! relation {
    (atomic) => {
        true
    };
    (granular) => {
        false
    };
}

macro_rules! map {
    ($relation:ident $($values:tt)*) => {
        super::Type::Map(super::Map { values: super::TypeRef::Static(&$($values)*), atomic: relation!($relation) })
    };
}

macro_rules! list {
    (map [$($key:literal),*] $($items:tt)*) => {
        super::Type::List(super::List {
            items: super::TypeRef::Static(&$($items)*),
            kind: super::ListKind::Map(super::Cow::Borrowed(&[$(super::Cow::Borrowed($key)),*])),
        })
    };
    (set $($items:tt)*) => {
        super::Type::List(super::List { items: super::TypeRef::Static(&$($items)*), kind: super::ListKind::Set })
    };
    (atomic $($items:tt)*) => {
        super::Type::List(super::List { items: super::TypeRef::Static(&$($items)*), kind: super::ListKind::Atomic })
    };
}

macro_rules! field {
    ($name:literal, $ty:expr) => {
        field!(@ $name, $ty, false, None, rule!())
    };
    ($name:literal, $ty:expr, required) => {
        field!(@ $name, $ty, true, None, rule!())
    };
    ($name:literal, $ty:expr, required, default $default:literal) => {
        field!(@ $name, $ty, true, Some(super::Cow::Borrowed($default)), rule!())
    };
    ($name:literal, $ty:expr, default $default:literal) => {
        field!(@ $name, $ty, false, Some(super::Cow::Borrowed($default)), rule!())
    };
    ($name:literal, $ty:expr, required, $rule:ident $($key:literal)?) => {
        field!(@ $name, $ty, true, None, rule!($rule $($key)?))
    };
    ($name:literal, $ty:expr, $rule:ident $($key:literal)?) => {
        field!(@ $name, $ty, false, None, rule!($rule $($key)?))
    };
    (@ $name:literal, $ty:expr, $required:literal, $default:expr, $rule:expr) => {
        super::Field {
            name: super::Cow::Borrowed($name),
            ty: super::TypeRef::Static(&$ty),
            required: $required,
            default: $default,
            patch: $rule,
        }
    };
}

macro_rules! rule {
    () => {
        rule!(@ false, false, false, None)
    };
    (merge) => {
        rule!(@ true, false, false, None)
    };
    (merge $key:literal) => {
        rule!(@ true, false, false, Some(super::Cow::Borrowed($key)))
    };
    (merge_retain_keys $key:literal) => {
        rule!(@ true, false, true, Some(super::Cow::Borrowed($key)))
    };
    (retain_keys) => {
        rule!(@ false, false, true, None)
    };
    (replace) => {
        rule!(@ false, true, false, None)
    };
    (@ $merge:literal, $replace:literal, $retain:literal, $key:expr) => {
        super::PatchRule { merge: $merge, replace: $replace, retain_keys: $retain, merge_key: $key }
    };
}

#[rustfmt::skip]
mod admissionregistration_v1;
#[rustfmt::skip]
mod admissionregistration_v1alpha1;
#[rustfmt::skip]
mod admissionregistration_v1beta1;
#[rustfmt::skip]
mod apiextensions_v1;
#[rustfmt::skip]
mod apiregistration_v1;
#[rustfmt::skip]
mod apiserverinternal_v1alpha1;
#[rustfmt::skip]
mod apps_v1;
#[rustfmt::skip]
mod authentication_v1;
#[rustfmt::skip]
mod authorization_v1;
#[rustfmt::skip]
mod autoscaling_v1;
#[rustfmt::skip]
mod autoscaling_v2;
#[rustfmt::skip]
mod batch_v1;
#[rustfmt::skip]
mod certificates_v1;
#[rustfmt::skip]
mod certificates_v1beta1;
#[rustfmt::skip]
mod coordination_v1;
#[rustfmt::skip]
mod coordination_v1alpha2;
#[rustfmt::skip]
mod coordination_v1beta1;
#[rustfmt::skip]
mod core_v1;
#[rustfmt::skip]
mod discovery_v1;
#[rustfmt::skip]
mod events_v1;
#[rustfmt::skip]
mod flowcontrol_v1;
#[rustfmt::skip]
mod index;
#[rustfmt::skip]
mod lifecycle_v1alpha1;
#[rustfmt::skip]
mod machinery_runtime;
#[rustfmt::skip]
mod meta_v1;
#[rustfmt::skip]
mod networking_v1;
#[rustfmt::skip]
mod node_v1;
#[rustfmt::skip]
mod policy_v1;
#[rustfmt::skip]
mod rbac_v1;
#[rustfmt::skip]
mod resource_v1;
#[rustfmt::skip]
mod resource_v1alpha3;
#[rustfmt::skip]
mod resource_v1beta1;
#[rustfmt::skip]
mod resource_v1beta2;
#[rustfmt::skip]
mod scheduling_v1;
#[rustfmt::skip]
mod scheduling_v1alpha3;
#[rustfmt::skip]
mod scheduling_v1beta1;
#[rustfmt::skip]
mod storage_v1;
#[rustfmt::skip]
mod storagemigration_v1;
#[rustfmt::skip]
mod storagemigration_v1beta1;

pub(crate) use index::ROOTS;

/// The type of `metadata`.
pub(crate) fn object_meta() -> &'static Type {
    &meta_v1::OBJECT_META
}

/// An object of a kind that is not built in: its metadata is known, the rest is not.
pub(crate) static UNKNOWN_OBJECT: Type = Type::Struct(Struct {
    name: Cow::Borrowed(""),
    atomic: false,
    fields: Cow::Borrowed(&[
        Field {
            name: Cow::Borrowed("apiVersion"),
            ty: TypeRef::Static(&STRING),
            required: false,
            default: None,
            patch: PatchRule {
                merge: false,
                replace: false,
                retain_keys: false,
                merge_key: None,
            },
        },
        Field {
            name: Cow::Borrowed("kind"),
            ty: TypeRef::Static(&STRING),
            required: false,
            default: None,
            patch: PatchRule {
                merge: false,
                replace: false,
                retain_keys: false,
                merge_key: None,
            },
        },
        Field {
            name: Cow::Borrowed("metadata"),
            ty: TypeRef::Static(&meta_v1::OBJECT_META),
            required: false,
            default: None,
            patch: PatchRule {
                merge: false,
                replace: false,
                retain_keys: false,
                merge_key: None,
            },
        },
    ]),
    open: true,
    overridden: false,
});
