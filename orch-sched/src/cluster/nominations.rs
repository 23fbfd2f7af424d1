use crate::object::{PodInfo, PodKey};
use std::collections::HashMap;
use std::sync::Arc;

/// Room that is being made: which waiting pod is nominated to which node.
#[derive(Debug, Default)]
pub(super) struct Nominations {
    node_of: HashMap<PodKey, Arc<str>>,
    pods: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
}

impl Nominations {
    pub(super) fn set(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove(&pod.key);
        let node: Arc<str> = node.into();
        self.node_of.insert(pod.key.clone(), node.clone());
        self.pods.entry(node).or_default().push(pod);
    }

    pub(super) fn remove(&mut self, key: &PodKey) {
        let Some(node) = self.node_of.remove(key) else {
            return;
        };
        if let Some(pods) = self.pods.get_mut(&node) {
            pods.retain(|pod| pod.key != *key);
            if pods.is_empty() {
                self.pods.remove(&node);
            }
        }
    }

    pub(super) fn node_of(&self, key: &PodKey) -> Option<&str> {
        self.node_of.get(key).map(|node| &**node)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.pods.keys().map(|node| &**node)
    }

    pub(super) fn before(&self, pod: &PodInfo, node: &str) -> Vec<Arc<PodInfo>> {
        let nominated = self.pods.get(node).into_iter().flatten();
        nominated
            .filter(|other| other.priority >= pod.priority && other.key != pod.key)
            .cloned()
            .collect()
    }
}
