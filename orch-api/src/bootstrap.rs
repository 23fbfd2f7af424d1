//! The objects that every cluster has: the system's namespaces, roles and their bindings, and the service by which pods reach the API server.

use std::net::SocketAddr;
use std::time::Duration;

use orch_core::ipam::Cidr;
use orch_core::status::ApiError;
use serde_json::{Value, json};

use crate::authz::rbac::{aggregation, policy};
use crate::context::Context;
use crate::registry::options::WriteOptions;
use crate::registry::write::Write;
use crate::registry::{Resource, live};
use crate::store_error;
use crate::user::{MASTERS, UserInfo};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// The classes above all that users may make.
const PRIORITY_CLASSES: [(&str, i32, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "For pods that their node cannot do without.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "For pods that the cluster cannot do without, on whichever node.",
    ),
];
/// How often, and how long apart, it is looked whether another server has written what this one could not.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(50);
/// The port of the service `kubernetes`, and the one behind it when nothing is advertised.
const PORTS: (u16, u16) = (443, 6443);

/// Creates what is missing and brings up to date what follows from the server's settings.
pub(crate) async fn create(
    context: &Context,
    cidrs: &[Cidr],
    advertise: Option<SocketAddr>,
    by_roles: bool,
) -> Result<(), ApiError> {
    let author = Author {
        context,
        user: UserInfo::new("system:apiserver", [MASTERS]),
        options: WriteOptions {
            field_manager: "kube-apiserver".into(),
            ..WriteOptions::default()
        },
    };
    context.services.repair().await?;
    context.services.follow().await.map_err(store_error)?;
    for name in NAMESPACES {
        author
            .ensure("", "namespaces", "", &json!({"metadata": {"name": name}}), false)
            .await?;
    }
    for (name, value, description) in PRIORITY_CLASSES {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        author
            .ensure("scheduling.k8s.io", "priorityclasses", "", &class, false)
            .await?;
    }
    if by_roles {
        policy::reconcile(context, &author.user, &author.options).await?;
        aggregation::settle(context).await?;
    }
    let Some(address) = cidrs.first().and_then(|cidr| cidr.nth(1)) else {
        return Ok(());
    };
    let target = advertise.map_or(PORTS.1, |advertise| advertise.port());
    author
        .ensure(
            "",
            "services",
            "default",
            &service(&address.to_string(), target),
            false,
        )
        .await?;
    if let Some(advertise) = advertise {
        author
            .ensure("", "endpoints", "default", &endpoints(advertise), true)
            .await?;
        author
            .ensure(
                "discovery.k8s.io",
                "endpointslices",
                "default",
                &slice(advertise),
                true,
            )
            .await?;
    }
    Ok(())
}

fn service(address: &str, target: u16) -> Value {
    json!({
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "sessionAffinity": "None",
            "ports": [{"name": "https", "port": PORTS.0, "protocol": "TCP", "targetPort": target}],
        },
    })
}

fn endpoints(advertise: SocketAddr) -> Value {
    json!({
        "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": advertise.ip().to_string()}],
            "ports": [{"name": "https", "port": advertise.port(), "protocol": "TCP"}],
        }],
    })
}

fn slice(advertise: SocketAddr) -> Value {
    json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if advertise.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [advertise.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": advertise.port(), "protocol": "TCP"}],
    })
}

/// Writes as the server itself.
struct Author<'a> {
    context: &'a Context,
    user: UserInfo,
    options: WriteOptions,
}

impl Author<'_> {
    /// Creates an object that is not there, and with `update` makes one that is there say the same.
    async fn ensure(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        object: &Value,
        update: bool,
    ) -> Result<(), ApiError> {
        let Some(resource) = self.context.resources.fixed(group, "v1", plural) else {
            return Ok(());
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let write = Write {
            context: self.context,
            resource,
            namespace,
            subresource: None,
            user: &self.user,
            options: &self.options,
        };
        let body = object.to_string();
        let written = match live::load(self.context, resource, namespace, name).await? {
            None => write.create(body.as_bytes()).await,
            Some(_) if update => write.replace(name, body.as_bytes()).await,
            Some(_) => return Ok(()),
        };
        match written {
            Ok(_) => Ok(()),
            // Another server was faster.
            Err(error) if error.is_already_exists() => Ok(()),
            // Or is just about to write what this was refused for: the address has its claim first.
            Err(error) => match self.appears(resource, namespace, name).await? {
                true => Ok(()),
                false => Err(error),
            },
        }
    }

    /// Whether an object comes into being within a moment.
    async fn appears(&self, resource: &Resource, namespace: &str, name: &str) -> Result<bool, ApiError> {
        for _ in 0..LOOKS {
            if live::load(self.context, resource, namespace, name)
                .await?
                .is_some()
            {
                return Ok(true);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(false)
    }
}
