//! The taints that follow from a node's conditions, and who bears them.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use orch_core::conditions;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions of trouble, and the taints that go with them.
const TROUBLES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// All taints that the node should have: those of others as they are, ours as its conditions say. None if it has
/// them already.
pub(super) fn wanted(node: &Node, now: &Time) -> Option<Vec<Taint>> {
    let present = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    let ours = ours(node);
    let mut taints: Vec<Taint> = present
        .iter()
        .filter(|taint| {
            !is_managed(&taint.key) || ours.contains(&(taint.key.as_str(), taint.effect.as_str()))
        })
        .cloned()
        .collect();
    for (key, effect) in ours {
        if taints
            .iter()
            .any(|taint| taint.key == key && taint.effect == effect)
        {
            continue;
        }
        taints.push(Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            time_added: (key != UNSCHEDULABLE).then(|| now.clone()),
            value: None,
        });
    }
    (taints != present).then_some(taints)
}

fn is_managed(key: &str) -> bool {
    matches!(key, NOT_READY | UNREACHABLE | UNSCHEDULABLE) || TROUBLES.iter().any(|(_, taint)| *taint == key)
}

fn ours(node: &Node) -> Vec<(&'static str, &'static str)> {
    let status = node.status.as_ref();
    let all = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let mut taints = Vec::new();
    let down = match conditions::get(all, "Ready").map(|ready| ready.status.as_str()) {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    };
    if let Some(key) = down {
        taints.extend([(key, "NoSchedule"), (key, "NoExecute")]);
    }
    let troubles = TROUBLES
        .iter()
        .filter(|(condition, _)| conditions::is_true(all, condition));
    taints.extend(troubles.map(|(_, key)| (*key, "NoSchedule")));
    if node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false)
    {
        taints.push((UNSCHEDULABLE, "NoSchedule"));
    }
    taints
}

/// Whether this toleration covers this taint.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        _ => false,
    }
}

/// When a pod has to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    Never,
    Now,
    In(Duration),
}

/// A pod has to leave a node at once for a taint it does not tolerate, and otherwise when the shortest of the times
/// is over for which it tolerates them.
pub(super) fn when_to_leave(taints: &[Taint], tolerations: &[Toleration], now: Timestamp) -> Leave {
    let mut soonest: Option<Timestamp> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let mut used = tolerations
            .iter()
            .filter(|toleration| tolerates(toleration, taint))
            .peekable();
        if used.peek().is_none() {
            return Leave::Now;
        }
        let Some(seconds) = used.filter_map(|toleration| toleration.toleration_seconds).min() else {
            continue;
        };
        let since = taint.time_added.as_ref().map_or(now, |added| added.0);
        // Beyond the end of time is never.
        if let Ok(at) = since.checked_add(SignedDuration::from_secs(seconds.max(0))) {
            soonest = Some(soonest.map_or(at, |soonest| soonest.min(at)));
        }
    }
    match soonest {
        None => Leave::Never,
        Some(at) if at <= now => Leave::Now,
        Some(at) => Leave::In(Duration::try_from(at.duration_since(now)).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(ready: &str, taints: &serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "spec": {"taints": taints},
            "status": {"conditions": [
                {"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "True"}]},
        }))
        .unwrap()
    }

    fn keys(taints: &[Taint]) -> Vec<String> {
        taints
            .iter()
            .map(|taint| format!("{}:{}", taint.key, taint.effect))
            .collect()
    }

    #[test]
    fn taints_follow_conditions_and_leave_those_of_others() {
        let mine = json!([{"key": "mine", "effect": "NoSchedule"}]);
        let taints = wanted(&node("Unknown", &mine), &conditions::now()).unwrap();
        assert_eq!(
            keys(&taints),
            [
                "mine:NoSchedule",
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute",
                "node.kubernetes.io/disk-pressure:NoSchedule",
            ]
        );
        let again = node("Unknown", &serde_json::to_value(&taints).unwrap());
        assert_eq!(wanted(&again, &conditions::now()), None);
        let back = node("True", &serde_json::to_value(&taints).unwrap());
        assert_eq!(
            keys(&wanted(&back, &conditions::now()).unwrap()),
            ["mine:NoSchedule", "node.kubernetes.io/disk-pressure:NoSchedule"]
        );
    }

    #[test]
    fn pods_leave_when_their_toleration_ends() {
        let now = Timestamp::now();
        let taint = |key: &str| Taint {
            key: key.into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(now - SignedDuration::from_secs(100))),
            value: None,
        };
        let toleration = |key: &str, seconds: Option<i64>| Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            toleration_seconds: seconds,
            ..Toleration::default()
        };
        let taints = [taint("a"), taint("b")];
        assert_eq!(when_to_leave(&[], &[], now), Leave::Never);
        assert_eq!(when_to_leave(&taints, &[toleration("a", None)], now), Leave::Now);
        let both = [toleration("a", None), toleration("b", Some(300))];
        assert_eq!(
            when_to_leave(&taints, &both, now),
            Leave::In(Duration::from_secs(200))
        );
        let over = [toleration("a", Some(50)), toleration("b", None)];
        assert_eq!(when_to_leave(&taints, &over, now), Leave::Now);
        let all = [Toleration {
            operator: Some("Exists".into()),
            ..Toleration::default()
        }];
        assert_eq!(when_to_leave(&taints, &all, now), Leave::Never);
        let schedule_only = Toleration {
            effect: Some("NoSchedule".into()),
            ..all[0].clone()
        };
        assert_eq!(when_to_leave(&taints, &[schedule_only], now), Leave::Now);
    }
}
