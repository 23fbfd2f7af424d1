//! The conformance kit of [`ProxyBackend`]: real packets through namespaces that it makes and removes.
//!
//! The machine's own tables are not touched: the backend runs in a fresh network namespace that plays the node. It takes root.
//!
//! ```no_run
//! # fn my_backend() -> Box<dyn orch_net::ProxyBackend> { unimplemented!() }
//! use orch_net::testkit::{Expectations, conformance};
//!
//! conformance(Expectations::default(), || my_backend()).unwrap();
//! ```

mod cases;
mod kit;
mod namespace;
mod topology;
mod traffic;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use namespace::Namespace;
pub use topology::Topology;

use crate::backend::ProxyBackend;
use kit::Kit;

/// Does something to the node that a backend must notice.
pub type Damage = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// What a backend promises beyond the contract.
#[derive(Clone, Default)]
pub struct Expectations {
    /// Endpoints see a client's own address where nothing forces the node's upon them: from pods of another subnet than the
    /// endpoint's, and from outsiders under `externalTrafficPolicy: Local`.
    pub keeps_client_address: bool,
    /// Established connections outlive the process: they are in the kernel.
    pub outlives_process: bool,
    /// Removes what the backend wrote, as an administrator might by mistake. Called in the node's namespace.
    pub damage: Option<Damage>,
    /// Whether the node's `net.bridge.bridge-nf-call-iptables` is on.
    pub bridge_netfilter: bool,
    /// The backend does not do IPv6.
    pub ipv4_only: bool,
}

impl fmt::Debug for Expectations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expectations")
            .field("keeps_client_address", &self.keeps_client_address)
            .field("outlives_process", &self.outlives_process)
            .field("damage", &self.damage.is_some())
            .field("bridge_netfilter", &self.bridge_netfilter)
            .field("ipv4_only", &self.ipv4_only)
            .finish()
    }
}

/// Which cases a backend failed.
pub struct Failures(Vec<(&'static str, String)>);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} cases failed:", self.0.len())?;
        self.0
            .iter()
            .try_for_each(|(case, error)| writeln!(f, "  {case}: {error}"))
    }
}

/// As displayed, because `unwrap` in a test is how most people meet it.
impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failures {}

/// Where the kit's pods have their addresses; a backend that distinguishes pods wants to know.
pub const POD_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:a:f4::/48"];
/// The addresses of those pods that share the node's bridge.
pub const BRIDGE_CIDRS: [&str; 2] = ["10.244.0.0/24", "fd00:a:f4::/64"];

/// Runs every case against backends that `factory` makes; it is called in the node's namespace, once for each start of the
/// proxy. Blocks for some seconds.
///
/// # Errors
/// [`Failures`], one for each case that failed, or one for the kit itself if it can not run here.
pub fn conformance<F>(expectations: Expectations, factory: F) -> Result<(), Failures>
where
    F: Fn() -> Box<dyn ProxyBackend> + Send + Sync + 'static,
{
    let factory: kit::Factory = Arc::new(factory);
    // A thread of its own, so that the caller may be in a runtime.
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failures(vec![("runtime", error.to_string())]))?;
        runtime.block_on(run_all(&expectations, &factory))
    });
    worker
        .join()
        .unwrap_or_else(|_| Err(Failures(vec![("kit", "panicked".to_owned())])))
}

async fn run_all(expectations: &Expectations, factory: &kit::Factory) -> Result<(), Failures> {
    let kit = Kit::new(expectations.clone(), factory.clone()).await;
    let mut kit = kit.map_err(|error| Failures(vec![("set up", error.to_string())]))?;
    let mut failures = Vec::new();
    for (name, case) in cases::ALL {
        let outcome = match kit.reset().await {
            Ok(()) => case(&mut kit).await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            failures.push((*name, error.to_string()));
        }
    }
    if let Err(error) = cases::cleanup(&mut kit).await {
        failures.push(("cleanup leaves nothing", error.to_string()));
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failures(failures))
    }
}
