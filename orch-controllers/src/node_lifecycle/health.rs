//! Signs of life of a node.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use orch_core::conditions;
use tokio::time::Instant;

/// What a node says of itself that changes while it lives. Only compared: its clock may be off.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pulse {
    renewed: Option<MicroTime>,
    reported: Option<Time>,
}

impl Pulse {
    pub(super) fn of(node: &Node, lease: Option<&Lease>) -> Self {
        Pulse {
            renewed: lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone()),
            reported: ready(node).and_then(|ready| ready.last_heartbeat_time.clone()),
        }
    }
}

/// The last pulse, and when it was noticed.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pulse: Pulse,
    at: Instant,
}

impl Heard {
    pub(super) fn now(pulse: Pulse) -> Self {
        Heard {
            pulse,
            at: Instant::now(),
        }
    }

    pub(super) fn update(&mut self, pulse: Pulse) {
        if self.pulse != pulse {
            *self = Heard::now(pulse);
        }
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }
}

fn node_conditions(node: &Node) -> &[NodeCondition] {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default()
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    conditions::get(node_conditions(node), "Ready")
}

/// Whether the node has ever reported its status.
pub(super) fn ever_reported(node: &Node) -> bool {
    ready(node).is_some()
}

/// The node with all its conditions unknown; none if they are already.
pub(super) fn silent(node: &Node) -> Option<Node> {
    let mut silent = node.clone();
    let list = silent
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    let mut changed = false;
    for type_ in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let present = conditions::get(list, type_);
        let (reason, message) = match present {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        if present.is_some_and(|present| present.status == "Unknown") {
            continue;
        }
        let heartbeat = present.and_then(|present| present.last_heartbeat_time.clone());
        let heartbeat = heartbeat.or_else(|| node.metadata.creation_timestamp.clone());
        changed |= conditions::set(
            list,
            NodeCondition {
                type_: type_.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: heartbeat,
                last_transition_time: None,
            },
        );
    }
    changed.then_some(silent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_silent_node_is_unknown_once() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]},
        }))
        .unwrap();
        let unknown = silent(&node).unwrap();
        let conditions = node_conditions(&unknown);
        assert_eq!(conditions.len(), 4);
        assert_eq!(conditions[0].status, "Unknown");
        assert_eq!(conditions[0].reason.as_deref(), Some("NodeStatusUnknown"));
        assert_eq!(conditions[1].reason.as_deref(), Some("NodeStatusNeverUpdated"));
        assert!(silent(&unknown).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_new_pulse_counts() {
        let pulse = |seconds: i64| Pulse {
            renewed: None,
            reported: Some(Time(k8s_openapi::jiff::Timestamp::from_second(seconds).unwrap())),
        };
        let mut heard = Heard::now(pulse(1));
        let first = heard.at();
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        heard.update(pulse(1));
        assert_eq!(heard.at(), first);
        heard.update(pulse(0));
        assert!(heard.at() > first, "clocks may go back");
    }
}
