use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use orch_core::ipam::Cidr;
use orch_core::status::ApiError;
use orch_store::{Compactor, Store, StoreError};

use super::ApiServer;
use crate::admission::{
    Admission, DefaultIngressClass, DefaultServiceAccount, DefaultStorageClass, DefaultTolerationSeconds,
    LimitRanger, NamespaceLifecycle, Priority, RuntimeClass, TaintNodesByCondition,
};
use crate::authn::service_account::{DEFAULT_ISSUER, Issuer, ServiceAccountTokens};
use crate::authn::{self, Authenticator, KeyError, SigningKey, StaticTokens, VerifyingKey};
use crate::authz::rbac::{Rbac, aggregation};
use crate::authz::{Authorization, Authorizer, Chain, Components};
use crate::bootstrap;
use crate::cache::StoreHandle;
use crate::context::{Context, Settings};
use crate::crd;
use crate::metrics::Metrics;
use crate::node::{HttpsConnector, NodeConnector};
use crate::openapi::OpenApi;
use crate::registry::Resources;
use crate::services::Services;
use crate::strategy::Strategy;
use crate::tasks::Tasks;

/// How long the store's history is kept at least, as kube-apiserver has it.
const COMPACTION_PERIOD: Duration = Duration::from_secs(300);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// No key for the tokens of service accounts could be made.
    #[error("there is no key for the tokens of service accounts")]
    Key(#[from] KeyError),
    /// The objects that every cluster has could not be made.
    #[error("the system's own objects cannot be created")]
    Bootstrap(#[source] ApiError),
    /// The custom resources that the store's definitions speak of could not be offered.
    #[error("custom resource definitions cannot be followed")]
    Definitions(#[source] ApiError),
}

/// What an [`ApiServer`] is made of. Everything has a default but the store.
#[must_use]
pub struct ApiServerBuilder {
    store: Arc<dyn Store>,
    strategies: Vec<Arc<dyn Strategy>>,
    authenticators: Vec<Arc<dyn Authenticator>>,
    static_tokens: Option<StaticTokens>,
    tokens: TokenSettings,
    authorization: Vec<Authorization>,
    admission: Vec<Arc<dyn Admission>>,
    compaction: Option<Duration>,
    service_cidrs: Vec<Cidr>,
    node_ports: RangeInclusive<u16>,
    advertise: Option<SocketAddr>,
    nodes: Option<Arc<dyn NodeConnector>>,
    settings: Settings,
}

impl fmt::Debug for ApiServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServerBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl ApiServerBuilder {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            strategies: crate::kinds::builtin()
                .into_iter()
                .chain(super::reviews::resources())
                .collect(),
            authenticators: Vec::new(),
            static_tokens: None,
            tokens: TokenSettings::default(),
            authorization: vec![Authorization::Rbac],
            admission: vec![
                Arc::new(NamespaceLifecycle),
                Arc::new(LimitRanger),
                Arc::new(DefaultServiceAccount),
                Arc::new(Priority),
                Arc::new(DefaultTolerationSeconds::default()),
                Arc::new(RuntimeClass),
                Arc::new(DefaultStorageClass),
                Arc::new(DefaultIngressClass),
                Arc::new(TaintNodesByCondition),
            ],
            compaction: Some(COMPACTION_PERIOD),
            service_cidrs: Vec::new(),
            node_ports: 30000..=32767,
            advertise: None,
            nodes: None,
            settings: Settings {
                event_ttl: Duration::from_secs(3600),
                anonymous: true,
                git_version: "v1.37.0+orch".to_owned(),
            },
        }
    }

    /// Offers one more resource. One of the same group, version and plural name replaces the built-in one.
    pub fn resource(mut self, strategy: Arc<dyn Strategy>) -> Self {
        self.strategies.push(strategy);
        self
    }

    /// Asks one more authenticator about requests without a client certificate, before the built-in ones.
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticators.push(authenticator);
        self
    }

    /// Accepts these tokens, as kube-apiserver with `--token-auth-file`.
    pub fn static_tokens(mut self, tokens: StaticTokens) -> Self {
        self.static_tokens = Some(tokens);
        self
    }

    /// Whether requests without any credential reach authorization, as the user `system:anonymous`, who by default may
    /// read health and the version. Otherwise they are refused with 401. Default `true`.
    pub fn anonymous(mut self, allowed: bool) -> Self {
        self.settings.anonymous = allowed;
        self
    }

    /// Signs the tokens of service accounts. Without it a key is made that ends with the server, and the tokens with it;
    /// servers on one store need the same key.
    pub fn service_account_key(mut self, key: SigningKey) -> Self {
        self.tokens.key = Some(key);
        self
    }

    /// Accepts tokens that an older key of the same issuer has signed.
    pub fn service_account_verifying_key(mut self, key: VerifyingKey) -> Self {
        self.tokens.older.push(key);
        self
    }

    /// Who the tokens of service accounts say has issued them. Default
    /// `https://kubernetes.default.svc.cluster.local`.
    pub fn service_account_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.tokens.issuer = issuer.into();
        self
    }

    /// Where others are told to fetch the keys of tokens. Default `/openid/v1/jwks` of the issuer.
    pub fn service_account_jwks_uri(mut self, uri: impl Into<String>) -> Self {
        self.tokens.jwks_uri = Some(uri.into());
        self
    }

    /// Whom a token has to be meant for to be accepted, and whom it is meant for when its request does not say. Default
    /// the issuer.
    pub fn api_audiences<S: Into<String>>(mut self, audiences: impl IntoIterator<Item = S>) -> Self {
        self.tokens.audiences = audiences.into_iter().map(Into::into).collect();
        self
    }

    /// Decides who may do what: these, asked in their order. Default: [`Authorization::Rbac`]. The group
    /// `system:masters` may do everything, whatever is chosen.
    pub fn authorization(mut self, modes: impl IntoIterator<Item = Authorization>) -> Self {
        self.authorization = modes.into_iter().collect();
        self
    }

    /// Decides who may do what, alone: [`authorization`](Self::authorization) with one [`Authorization::Other`].
    pub fn authorizer(self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorization([Authorization::Other(authorizer)])
    }

    /// Adds an admission rule after those that are there.
    pub fn admission(mut self, rule: Arc<dyn Admission>) -> Self {
        self.admission.push(rule);
        self
    }

    /// Takes away all admission rules, the built-in ones too.
    pub fn without_admission(mut self) -> Self {
        self.admission.clear();
        self
    }

    /// How long the store's history is kept, so that watches can resume and pages of a list stay consistent, unless
    /// there is more of it than a [`Compactor`] keeps. Default five minutes; `None` never compacts the store.
    pub fn compaction(mut self, period: Option<Duration>) -> Self {
        self.compaction = period;
        self
    }

    /// How long events are kept after they were last written. Default one hour.
    pub fn event_ttl(mut self, ttl: Duration) -> Self {
        self.settings.event_ttl = ttl;
        self
    }

    /// The range of services' cluster IPs; a second call adds the range of the other address family. Default
    /// 10.96.0.0/16.
    pub fn service_cidr(mut self, cidr: Cidr) -> Self {
        self.service_cidrs.push(cidr);
        self
    }

    /// The range of services' node ports. Default 30000 to 32767.
    pub fn node_port_range(mut self, range: RangeInclusive<u16>) -> Self {
        self.node_ports = range;
        self
    }

    /// Where pods reach this server. With it the service `kubernetes` has an endpoint.
    pub fn advertise(mut self, address: SocketAddr) -> Self {
        self.advertise = Some(address);
        self
    }

    /// How to reach node agents over HTTPS, for logs: a configuration with a client certificate that they accept.
    pub fn kubelet_client(self, tls: Arc<rustls::ClientConfig>) -> Self {
        self.node_connector(Arc::new(HttpsConnector::new(tls)))
    }

    /// Another way to reach node agents.
    pub fn node_connector(mut self, nodes: Arc<dyn NodeConnector>) -> Self {
        self.nodes = Some(nodes);
        self
    }

    /// Makes the server and, on an empty store, the objects that every cluster has.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn build(self) -> Result<ApiServer, BuildError> {
        let store = StoreHandle(self.store);
        let tasks = Tasks::new();
        store.0.current_revision().await?;
        if let Some(period) = self.compaction {
            let compactor = Compactor::new(Arc::clone(&store.0)).keep(period);
            tasks.spawn(move |shutdown| compactor.run(shutdown));
        }
        let cidrs = match self.service_cidrs.as_slice() {
            [] => &[default_service_cidr()],
            given => given,
        };
        let strategies = self.strategies;
        let openapi = OpenApi::new(
            self.settings.git_version.clone(),
            strategies.iter().map(|one| one.info().clone()).collect(),
        );
        let resources = Resources::new(strategies, &store, &tasks);
        let rbac = Rbac::new(&resources);
        let issuer = self.tokens.issuer()?;
        let authenticator = authenticator(self.authenticators, self.static_tokens, &issuer, &resources);
        let by_roles = self
            .authorization
            .iter()
            .any(|mode| matches!(mode, Authorization::Rbac));
        let context = Arc::new(Context {
            resources,
            services: Services::new(cidrs, self.node_ports, store.clone(), tasks.clone()),
            store,
            tasks,
            authenticator,
            issuer,
            authorizer: authorizer(self.authorization, &rbac),
            rbac,
            admission: self.admission,
            nodes: self.nodes,
            metrics: Metrics::new(),
            openapi: ArcSwap::from_pointee(openapi),
            definitions: crd::Definitions::new(),
            settings: self.settings,
        });
        bootstrap::create(&context, cidrs, self.advertise, by_roles)
            .await
            .map_err(BuildError::Bootstrap)?;
        if by_roles {
            let followed = Arc::downgrade(&context);
            context
                .tasks
                .spawn(move |shutdown| aggregation::follow(followed, shutdown));
        }
        crd::start(&context).await.map_err(BuildError::Definitions)?;
        Ok(ApiServer { context })
    }
}

/// What the builder was told about the tokens of service accounts.
struct TokenSettings {
    key: Option<SigningKey>,
    older: Vec<VerifyingKey>,
    issuer: String,
    jwks_uri: Option<String>,
    audiences: Vec<String>,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            key: None,
            older: Vec::new(),
            issuer: DEFAULT_ISSUER.to_owned(),
            jwks_uri: None,
            audiences: Vec::new(),
        }
    }
}

impl TokenSettings {
    fn issuer(self) -> Result<Arc<Issuer>, KeyError> {
        let key = self.key.map_or_else(SigningKey::generate, Ok)?;
        let issuer = Issuer::new(self.issuer, self.jwks_uri, self.audiences, key, self.older);
        Ok(Arc::new(issuer))
    }
}

fn authenticator(
    given: Vec<Arc<dyn Authenticator>>,
    static_tokens: Option<StaticTokens>,
    issuer: &Arc<Issuer>,
    resources: &Resources,
) -> authn::Chain {
    let mut chain = given;
    if let Some(tokens) = static_tokens {
        chain.push(Arc::new(tokens.meant_for(&issuer.audiences)));
    }
    chain.push(Arc::new(ServiceAccountTokens::new(Arc::clone(issuer), resources)));
    authn::Chain(chain)
}

fn authorizer(modes: Vec<Authorization>, rbac: &Rbac) -> Arc<dyn Authorizer> {
    let mut chain: Vec<Arc<dyn Authorizer>> = Vec::new();
    for mode in modes {
        match mode {
            Authorization::Rbac => {
                chain.push(Arc::new(Components));
                chain.push(Arc::new(rbac.clone()));
            }
            Authorization::Other(authorizer) => chain.push(authorizer),
        }
    }
    Arc::new(Chain(chain))
}

fn default_service_cidr() -> Cidr {
    Cidr::new(IpAddr::from([10, 96, 0, 0]), 16).expect("an IPv4 network may have 16 bits")
}

#[cfg(test)]
mod tests {
    use orch_store::{ListOptions, MemoryStore};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_forgets_history_after_its_time() {
        let period = Duration::from_secs(10);
        let store = Arc::new(MemoryStore::new());
        let server = ApiServer::builder(Arc::clone(&store) as Arc<dyn Store>)
            .compaction(Some(period))
            .build()
            .await
            .unwrap();
        let old = ListOptions::default().at(store.current_revision().await.unwrap());
        store.create("k".into(), "v".into(), None).await.unwrap();
        tokio::time::sleep(period * 2).await;
        assert!(store.list(b"", old).await.unwrap_err().is_compacted());
        server.stop();
    }
}
