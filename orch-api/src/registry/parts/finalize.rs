//! `namespaces/NAME/finalize`: how the namespace controller says that a namespace is empty.

use k8s_openapi::api::core::v1::Namespace;
use orch_core::status::ApiError;

use crate::registry::edit::Edit;
use crate::registry::write::{Outcome, Write};

impl Write<'_> {
    /// Takes over the finalizers of the body's spec, and nothing else. The namespace goes with the last one.
    pub(crate) async fn finalize_namespace(&self, name: &str, body: &[u8]) -> Result<Outcome, ApiError> {
        let mut wanted = self.read_body(body)?;
        self.place(&mut *wanted.object, Some(name))?;
        let wanted = wanted.object;
        let finalizers =
            |namespace: &Namespace| namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone());
        let wanted_finalizers = wanted.downcast_ref::<Namespace>().and_then(finalizers);
        let version = wanted
            .metadata()
            .resource_version
            .clone()
            .filter(|version| !version.is_empty());
        self.edit(name, |object| {
            if version.is_some() && version != object.metadata().resource_version {
                return Err(ApiError::modified(&self.resource.group_resource, name));
            }
            let namespace = object
                .downcast_mut::<Namespace>()
                .ok_or_else(ApiError::unknown_resource)?;
            namespace
                .spec
                .get_or_insert_default()
                .finalizers
                .clone_from(&wanted_finalizers);
            let metadata = &namespace.metadata;
            let is_held = |names: Option<&Vec<String>>| names.is_some_and(|names| !names.is_empty());
            let done = metadata.deletion_timestamp.is_some()
                && !is_held(metadata.finalizers.as_ref())
                && !is_held(wanted_finalizers.as_ref());
            Ok(if done { Edit::Remove } else { Edit::Store })
        })
        .await
    }
}
