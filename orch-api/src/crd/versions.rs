//! The versions of one custom resource, and how to get from one to another where only the name of the version differs.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::apply::Versions;
use crate::schema::TypeRef;

/// All versions of a definition, with the merge rules of each.
#[derive(Debug)]
pub(crate) struct Siblings {
    /// By API version (`example.com/v1`).
    shapes: Arc<[(String, TypeRef)]>,
    own: String,
    stored: String,
}

impl Siblings {
    pub(crate) fn new(shapes: Arc<[(String, TypeRef)]>, own: String, stored: String) -> Self {
        Self { shapes, own, stored }
    }

    /// The API version from which the others are seen.
    pub(crate) fn own(&self) -> &str {
        &self.own
    }

    /// The API version that is stored.
    pub(crate) fn stored(&self) -> &str {
        &self.stored
    }

    pub(crate) fn shape(&self, api_version: &str) -> Option<TypeRef> {
        let found = self.shapes.iter().find(|(version, _)| version == api_version);
        found.map(|(_, shape)| shape.clone())
    }
}

impl Versions for Siblings {
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, TypeRef)> {
        let shape = self.shape(api_version)?;
        let mut object = object.clone();
        object["apiVersion"] = Value::from(api_version);
        Some((object, shape))
    }

    fn convert_back(&self, object: &Value, _from: &str) -> Option<Value> {
        let mut object = object.clone();
        object["apiVersion"] = Value::from(self.own.as_str());
        Some(object)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    api_version: String,
}

/// The API version of serialised bytes.
pub(crate) fn api_version(json: &[u8]) -> Option<String> {
    let found: Result<Typed, _> = serde_json::from_slice(json);
    found.ok().map(|typed| typed.api_version)
}
