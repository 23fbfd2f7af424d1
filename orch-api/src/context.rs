//! What every request works with.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::admission::Admission;
use crate::authn;
use crate::authn::service_account::Issuer;
use crate::authz::Authorizer;
use crate::authz::rbac::Rbac;
use crate::cache::StoreHandle;
use crate::crd::Definitions;
use crate::metrics::Metrics;
use crate::node::NodeConnector;
use crate::openapi::OpenApi;
use crate::registry::{Resource, Resources};
use crate::services::Services;
use crate::tasks::Tasks;

/// The parts of a running server.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) store: StoreHandle,
    pub(crate) resources: Resources,
    pub(crate) tasks: Tasks,
    pub(crate) authenticator: authn::Chain,
    /// Who signs the tokens of service accounts.
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    /// Who holds which rights by roles, whether or not these decide.
    pub(crate) rbac: Rbac,
    pub(crate) admission: Vec<Arc<dyn Admission>>,
    pub(crate) services: Services,
    pub(crate) nodes: Option<Arc<dyn NodeConnector>>,
    pub(crate) metrics: Metrics,
    pub(crate) openapi: ArcSwap<OpenApi>,
    pub(crate) definitions: Definitions,
    pub(crate) settings: Settings,
}

/// What the builder was told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long events are kept.
    pub(crate) event_ttl: Duration,
    /// Whether requests without credentials are let to authorization.
    pub(crate) anonymous: bool,
    /// What `/version` says.
    pub(crate) git_version: String,
}

impl Context {
    pub(crate) fn core(&self, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.fixed("", "v1", plural)
    }

    /// How long an object of that resource lives after each write.
    pub(crate) fn time_to_live(&self, resource: &Resource) -> Option<Duration> {
        (resource.info().storage_path == "events").then_some(self.settings.event_ttl)
    }
}
