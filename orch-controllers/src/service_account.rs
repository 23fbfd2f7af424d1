//! What every namespace has: the ServiceAccount `default`, and the cluster's root certificate as a ConfigMap.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use orch_core::controller::{Controller, Outcome, ReconcileError, Watches};
use orch_core::informer::{Event, Informer, Informers, Watchable};
use orch_core::key::NamespacedName;

use crate::pods;

const DEFAULT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";

/// Keeps a ServiceAccount `default` in every namespace.
pub struct ServiceAccountController {
    client: Client,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

impl std::fmt::Debug for ServiceAccountController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAccountController").finish_non_exhaustive()
    }
}

impl ServiceAccountController {
    /// A controller that reads these informers and writes through their client.
    pub fn new(informers: &Informers) -> Self {
        Self {
            client: informers.client().clone(),
            namespaces: informers.get(),
            accounts: informers.get(),
        }
    }
}

#[async_trait]
impl Controller for ServiceAccountController {
    fn name(&self) -> &str {
        "serviceaccount"
    }

    fn watches(&self, watches: &mut Watches) {
        watches.own(&self.namespaces);
        watches.mapped(&self.accounts, |event| namespace_of_removed(event, DEFAULT));
    }

    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        let there = NamespacedName::new(key.name(), DEFAULT);
        if !is_active(&self.namespaces, key) || self.accounts.get(&there).is_some() {
            return Ok(Outcome::Done);
        }
        let account = ServiceAccount {
            metadata: meta(DEFAULT, key.name()),
            ..ServiceAccount::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), key.name());
        created(api.create(&PostParams::default(), &account).await)
    }
}

/// Publishes the certificate by which pods verify the API server, as ConfigMap `kube-root-ca.crt` in every namespace.
pub struct RootCaPublisher {
    client: Client,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
    certificate: Arc<str>,
}

impl std::fmt::Debug for RootCaPublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootCaPublisher").finish_non_exhaustive()
    }
}

impl RootCaPublisher {
    /// Publishes `certificate`, PEM.
    pub fn new(informers: &Informers, certificate: impl Into<Arc<str>>) -> Self {
        let only_ours = format!("metadata.name={ROOT_CA}");
        Self {
            client: informers.client().clone(),
            namespaces: informers.get(),
            maps: informers.get_with("root-ca", |builder| builder.fields(&only_ours)),
            certificate: certificate.into(),
        }
    }

    fn wanted(&self, namespace: &str) -> ConfigMap {
        let description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                           endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                           guaranteed across distributions of Kubernetes clusters.";
        let mut metadata = meta(ROOT_CA, namespace);
        metadata.annotations = Some([(DESCRIPTION.to_owned(), description.to_owned())].into());
        ConfigMap {
            metadata,
            data: Some([(ROOT_CA_KEY.to_owned(), self.certificate.to_string())].into()),
            ..ConfigMap::default()
        }
    }
}

#[async_trait]
impl Controller for RootCaPublisher {
    fn name(&self) -> &str {
        "root-ca-certificate-publisher"
    }

    fn watches(&self, watches: &mut Watches) {
        watches.own(&self.namespaces);
        watches.mapped(&self.maps, |event| {
            event
                .object()
                .map(|map| NamespacedName::cluster(&map.namespace().unwrap_or_default()))
        });
    }

    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        if !is_active(&self.namespaces, key) {
            return Ok(Outcome::Done);
        }
        let wanted = self.wanted(key.name());
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), key.name());
        match self.maps.get(&NamespacedName::new(key.name(), ROOT_CA)) {
            None => created(api.create(&PostParams::default(), &wanted).await),
            Some(map) if map.data == wanted.data => Ok(Outcome::Done),
            Some(map) => {
                let mut repaired = (*map).clone();
                repaired.data = wanted.data;
                api.replace(ROOT_CA, &PostParams::default(), &repaired).await?;
                Ok(Outcome::Done)
            }
        }
    }
}

fn meta(name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(namespace.into()),
        ..ObjectMeta::default()
    }
}

fn is_active(namespaces: &Informer<Namespace>, key: &NamespacedName) -> bool {
    namespaces
        .get(key)
        .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_none())
}

/// The namespace, as a key, of a removed object with this name.
fn namespace_of_removed<K: Watchable>(event: &Event<K>, name: &str) -> Option<NamespacedName> {
    let Event::Deleted(object) = event else {
        return None;
    };
    let meta = object.meta();
    (meta.name.as_deref() == Some(name))
        .then(|| NamespacedName::cluster(meta.namespace.as_deref().unwrap_or_default()))
}

/// Somebody else may have been quicker, or the namespace may be on its way out: both are fine.
fn created<K>(result: kube::Result<K>) -> Result<Outcome, ReconcileError> {
    match result {
        Ok(_) => Ok(Outcome::Done),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Outcome::Done),
        Err(error) if pods::is_namespace_terminating(&error) => Ok(Outcome::Done),
        Err(error) => Err(error.into()),
    }
}
