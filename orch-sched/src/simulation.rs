//! Placement without an API server.

use crate::cluster::Cluster;
use crate::diagnosis::Diagnosis;
use crate::engine::{Decision, Engine};
use crate::object::{NodeInfo, PodInfo};
use crate::profile::{Profile, ProfileError};
use crate::queue::QueueTimes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Places pods on a cluster that exists in memory only, with the very decisions of the [`Scheduler`](crate::Scheduler).
///
/// ```
/// use orch_sched::{Profile, Simulation};
/// use k8s_openapi::api::core::v1::{Node, Pod};
///
/// let node: Node = serde_json::from_str(
///     r#"{"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"}}}"#)?;
/// let pod = |name: &str| serde_json::from_str::<Pod>(&format!(
///     r#"{{"metadata": {{"name": "{name}", "namespace": "default"}},
///         "spec": {{"containers": [{{"name": "c", "resources": {{"requests": {{"cpu": "1500m"}}}}}}]}}}}"#));
///
/// let mut simulation = Simulation::new(vec![Profile::upstream()])?;
/// simulation.add_node((&node).into());
/// simulation.add_pod((&pod("first")?).into());
/// simulation.add_pod((&pod("second")?).into());
/// let outcomes = simulation.run();
/// assert_eq!(outcomes[0].node(), Some("n1"));
/// let why = outcomes[1].result.as_ref().unwrap_err();
/// assert_eq!(why.to_string(), "0/1 nodes are available: 1 Insufficient cpu.");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Simulation {
    engine: Engine,
    now: Duration,
}

/// What became of a pod.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// Its node's name, or why it has none.
    pub result: Result<String, Diagnosis>,
}

impl Outcome {
    /// Its node's name, if it has one.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.result.as_ref().ok().map(String::as_str)
    }
}

impl Simulation {
    /// An empty cluster; the same seed (0) for the same choices each time.
    ///
    /// # Errors
    /// When the profiles contradict themselves or each other.
    pub fn new(profiles: Vec<Profile>) -> Result<Self, ProfileError> {
        Self::with_seed(profiles, 0)
    }

    /// An empty cluster; `seed` decides between nodes that are equally good.
    ///
    /// # Errors
    /// When the profiles contradict themselves or each other.
    pub fn with_seed(profiles: Vec<Profile>, seed: u64) -> Result<Self, ProfileError> {
        Ok(Self {
            engine: Engine::new(profiles, QueueTimes::default(), seed)?,
            now: Duration::ZERO,
        })
    }

    /// Adds a node, or changes it.
    pub fn add_node(&mut self, node: NodeInfo) {
        self.engine.set_node(node, self.now);
    }

    /// Takes a node away.
    pub fn remove_node(&mut self, name: &str) {
        self.engine.remove_node(name, self.now);
    }

    /// Adds a namespace, or changes its labels; pod affinity may select by them.
    pub fn add_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>) {
        self.engine.set_namespace(name, labels, self.now);
    }

    /// Adds a pod: to its node if it has one, else to those that [`run`](Self::run) places.
    pub fn add_pod(&mut self, pod: PodInfo) {
        self.engine.set_pod(pod, self.now);
    }

    /// Takes a pod away.
    pub fn remove_pod(&mut self, pod: &PodInfo) {
        self.engine.remove_pod(&pod.key, self.now);
    }

    /// Places the waiting pods, each once, in the order of the queue. Those that do not fit wait for the next change.
    pub fn run(&mut self) -> Vec<Outcome> {
        std::iter::from_fn(|| self.step()).collect()
    }

    /// Places the next waiting pod.
    pub fn step(&mut self) -> Option<Outcome> {
        match self.engine.decide(self.now)? {
            Decision::Bind(assignment) => {
                self.engine.bound(&assignment.pod.key);
                Some(Outcome {
                    pod: assignment.pod,
                    result: Ok(assignment.node),
                })
            }
            Decision::Unschedulable(failure) => Some(Outcome {
                pod: failure.pod,
                result: Err(failure.diagnosis),
            }),
        }
    }

    /// The cluster as it stands.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        self.engine.cluster()
    }
}
