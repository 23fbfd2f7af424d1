//! One decoded object inside the write pipeline: typed for kinds with rules, dynamic for the rest.

use std::any::Any;
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// An API object of any kind, decoded. It is read from JSON once, passed through every step of a write, and serialised
/// once at the end.
pub trait Object: Any + Send + Sync + Debug {
    /// The object's metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// The object's metadata, to change.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// The object as a JSON tree.
    fn to_value(&self) -> Value;
    /// The object as JSON text.
    fn to_json(&self) -> Vec<u8>;
    /// A copy.
    fn clone_box(&self) -> Box<dyn Object>;
    /// Becomes `other`, if that is of the same type; else nothing happens.
    fn assign(&mut self, other: Box<dyn Object>);
    /// For downcasts.
    fn as_any(&self) -> &dyn Any;
    /// For downcasts.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl dyn Object {
    /// The object as its Rust type, when it is of that type.
    #[must_use]
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        self.as_any().downcast_ref()
    }

    /// The object as its Rust type, when it is of that type.
    #[must_use]
    pub fn downcast_mut<T: 'static>(&mut self) -> Option<&mut T> {
        self.as_any_mut().downcast_mut()
    }

    /// `metadata.name`, empty when there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// `metadata.namespace`, empty when there is none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.metadata().namespace.as_deref().unwrap_or_default()
    }
}

impl Clone for Box<dyn Object> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}

/// What a Rust type must offer to be the object of a [`Kind`](crate::strategy::Kind). Every kind of k8s-openapi with
/// ordinary metadata does.
pub trait Typed:
    k8s_openapi::Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
}

impl<T> Typed for T where
    T: k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

impl<T: Typed> Object for T {
    fn metadata(&self) -> &ObjectMeta {
        k8s_openapi::Metadata::metadata(self)
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        k8s_openapi::Metadata::metadata_mut(self)
    }

    fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("an API type serialises to JSON: its keys are strings")
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an API type serialises to JSON: its keys are strings")
    }

    fn clone_box(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }

    fn assign(&mut self, other: Box<dyn Object>) {
        if let Some(other) = other.downcast_ref::<Self>() {
            self.clone_from(other);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// An object whose kind has no Rust type: everything beside the metadata is kept as it came.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DynamicObject {
    /// `group/version`, or `v1`.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The metadata.
    pub metadata: ObjectMeta,
    /// All other top-level fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Object for DynamicObject {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("a dynamic object serialises to JSON: its keys are strings")
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a dynamic object serialises to JSON: its keys are strings")
    }

    fn clone_box(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }

    fn assign(&mut self, other: Box<dyn Object>) {
        if let Some(other) = other.downcast_ref::<Self>() {
            self.clone_from(other);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn a_typed_object_is_reached_through_the_erased_one() {
        let mut object: Box<dyn Object> = Box::new(ConfigMap::default());
        object.metadata_mut().name = Some("a".into());
        assert_eq!(object.name(), "a");
        assert!(object.downcast_ref::<ConfigMap>().is_some());
        assert_eq!(object.clone().to_value()["metadata"]["name"], "a");
    }

    #[test]
    fn a_dynamic_object_keeps_every_field() {
        let object = DynamicObject {
            api_version: "example.org/v1".into(),
            kind: "Widget".into(),
            metadata: ObjectMeta::default(),
            fields: Map::from_iter([("spec".to_owned(), serde_json::json!({"size": 3}))]),
        };
        assert_eq!(
            object.to_value(),
            serde_json::json!({"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {}, "spec": {"size": 3}})
        );
    }
}
