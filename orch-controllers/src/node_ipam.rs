//! Node IPAM: gives each node its part of the cluster's pod ranges, as `spec.podCIDR` and `spec.podCIDRs`.

use std::collections::HashMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use orch_core::controller::{Controller, Outcome, ReconcileError, Watches};
use orch_core::events::{self, EventRecorder, EventType};
use orch_core::informer::{Informer, Informers};
use orch_core::ipam::{AllocError, Cidr, CidrAllocator};
use orch_core::key::NamespacedName;
use parking_lot::Mutex;
use serde_json::json;

/// The name under which events are recorded.
pub const COMPONENT: &str = "cidrAllocator";

/// Why no ranges can be given out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeIpamError {
    /// The nodes' parts are no parts of the range.
    #[error("{cidr} has no parts of {prefix} bits")]
    Prefix {
        /// The range.
        cidr: Cidr,
        /// The size of the parts asked for.
        prefix: u8,
    },
    /// No part is left for this node.
    #[error("no range is left for node {node}")]
    Full {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: AllocError,
    },
}

/// Gives nodes their pod ranges.
pub struct NodeIpamController {
    client: Client,
    nodes: Informer<Node>,
    recorder: EventRecorder,
    state: Mutex<State>,
}

impl std::fmt::Debug for NodeIpamController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeIpamController").finish_non_exhaustive()
    }
}

struct State {
    allocators: Vec<CidrAllocator>,
    /// What each node has, to be given back when it goes.
    held: HashMap<NamespacedName, Vec<Cidr>>,
    /// Whether what nodes have from before was taken note of. Nothing is given out earlier.
    noted: bool,
}

impl NodeIpamController {
    /// Gives out parts of `ranges`, each with the length of its parts' prefix; one range a family.
    ///
    /// # Errors
    /// When a range has no such parts.
    pub fn new(
        informers: &Informers,
        recorder: EventRecorder,
        ranges: &[(Cidr, u8)],
    ) -> Result<Self, NodeIpamError> {
        let allocator = |&(cidr, prefix): &(Cidr, u8)| {
            CidrAllocator::new(cidr, prefix).ok_or(NodeIpamError::Prefix { cidr, prefix })
        };
        Ok(NodeIpamController {
            client: informers.client().clone(),
            nodes: informers.get(),
            recorder,
            state: Mutex::new(State {
                allocators: ranges.iter().map(allocator).collect::<Result<_, _>>()?,
                held: HashMap::new(),
                noted: false,
            }),
        })
    }

    /// What the node is to get; none if it has something.
    fn decide(&self, key: &NamespacedName, node: &Node) -> Result<Option<Vec<Cidr>>, AllocError> {
        let mut state = self.state.lock();
        if !state.noted {
            for node in self.nodes.list() {
                state.note(NamespacedName::of(&*node), &node);
            }
            state.noted = true;
        }
        state.note(key.clone(), node);
        if !ranges_of(node).is_empty() {
            return Ok(None);
        }
        // What was decided and could not be written is decided still.
        if let Some(held) = state.held.get(key) {
            return Ok(Some(held.clone()));
        }
        let mut given = Vec::new();
        for i in 0..state.allocators.len() {
            match state.allocators[i].next() {
                Ok(cidr) => given.push(cidr),
                Err(error) => {
                    state.give_back(&given);
                    return Err(error);
                }
            }
        }
        state.held.insert(key.clone(), given.clone());
        Ok(Some(given))
    }
}

impl State {
    /// Takes note of what a node has. What is outside of our ranges is not ours to manage.
    fn note(&mut self, key: NamespacedName, node: &Node) {
        let has = ranges_of(node);
        if has.is_empty() || self.held.get(&key) == Some(&has) {
            return;
        }
        if let Some(held) = self.held.remove(&key) {
            self.give_back(&held);
        }
        for cidr in &has {
            for allocator in &mut self.allocators {
                if let Err(error) = allocator.reserve(*cidr)
                    && error.is_allocated()
                {
                    tracing::warn!(node = %key, %cidr, "two nodes have one pod range");
                }
            }
        }
        self.held.insert(key, has);
    }

    fn give_back(&mut self, cidrs: &[Cidr]) {
        for cidr in cidrs {
            for allocator in &mut self.allocators {
                allocator.release(*cidr);
            }
        }
    }

    fn forget(&mut self, key: &NamespacedName) {
        if let Some(held) = self.held.remove(key) {
            self.give_back(&held);
        }
    }
}

fn ranges_of(node: &Node) -> Vec<Cidr> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let all = spec.pod_cidrs.as_deref().unwrap_or_default();
    let first = spec.pod_cidr.as_ref().filter(|_| all.is_empty());
    all.iter()
        .chain(first)
        .filter_map(|cidr| cidr.parse().ok())
        .collect()
}

#[async_trait]
impl Controller for NodeIpamController {
    fn name(&self) -> &str {
        "node-ipam"
    }

    fn watches(&self, watches: &mut Watches) {
        watches.own(&self.nodes);
    }

    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        let Some(node) = self.nodes.get(key) else {
            self.state.lock().forget(key);
            return Ok(Outcome::Done);
        };
        let given = match self.decide(key, &node) {
            Ok(None) => return Ok(Outcome::Done),
            Ok(Some(given)) => given,
            Err(source) => {
                let node_name = node.name_any();
                let message = format!("Node {node_name} status is now: CIDRNotAvailable");
                self.recorder.event(
                    &events::reference(&*node),
                    EventType::Normal,
                    "CIDRNotAvailable",
                    message,
                );
                return Err(NodeIpamError::Full {
                    node: node_name,
                    source,
                }
                .into());
            }
        };
        let patch = json!({
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": given.first(), "podCIDRs": given},
        });
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes
            .patch(key.name(), &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(Outcome::Done)
    }

    fn workers(&self) -> usize {
        1
    }
}
