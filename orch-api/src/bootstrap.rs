//! The objects that every cluster has.

use orch_core::status::ApiError;
use serde_json::json;

use crate::context::Context;
use crate::registry::live;
use crate::registry::options::WriteOptions;
use crate::registry::write::Write;
use crate::user::{MASTERS, UserInfo};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Creates what is missing.
pub(crate) async fn create(context: &Context) -> Result<(), ApiError> {
    let user = UserInfo::new("system:apiserver", [MASTERS]);
    let options = WriteOptions {
        field_manager: "kube-apiserver".into(),
        ..WriteOptions::default()
    };
    let Some(resource) = context.core("namespaces") else {
        return Ok(());
    };
    for name in NAMESPACES {
        if live::load(context, resource, "", name).await?.is_some() {
            continue;
        }
        let write = Write {
            context,
            resource,
            namespace: "",
            subresource: None,
            user: &user,
            options: &options,
        };
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        match write.create(body.to_string().as_bytes()).await {
            Ok(_) => (),
            Err(error) if error.is_already_exists() => (),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
