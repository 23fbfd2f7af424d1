//! Why a pod could not be placed, in upstream's words.

use crate::cluster::{NodeId, NodeSet};
use crate::policy::Rejection;
use crate::profile::PolicySet;
use std::collections::BTreeMap;
use std::fmt;

/// What all policies said about all nodes, summed up. Displays as upstream's `FailedScheduling` message:
/// `0/5 nodes are available: 2 Insufficient cpu, 3 node(s) were unschedulable.`
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// The message of a policy that ruled out all nodes at once.
    pub pre_filter: Option<String>,
    /// On how many nodes each reason stood in the way.
    pub reasons: BTreeMap<String, usize>,
    /// The policies that rejected a node; an event must concern one of them to be worth another attempt.
    pub rejected_by: PolicySet,
    /// Nodes on which displacing pods might help.
    pub resolvable: NodeSet,
    /// What came of trying to make room.
    pub post_filter: Option<String>,
}

impl Diagnosis {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            nodes,
            ..Self::default()
        }
    }

    /// Notes that a policy, by its place in the profile, rejected a node.
    pub(crate) fn reject(&mut self, policy: usize, node: NodeId, rejection: Rejection) {
        self.rejected_by.insert(policy);
        if rejection.resolvable {
            self.resolvable.insert(node);
        }
        for reason in rejection.reasons {
            *self.reasons.entry(reason.into_owned()).or_default() += 1;
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if let Some(message) = &self.pre_filter {
            write!(f, " {message}.")?;
        } else if !self.reasons.is_empty() {
            write!(f, " {}.", histogram(&self.reasons))?;
        }
        if let Some(message) = &self.post_filter {
            write!(f, " {message}")?;
        }
        Ok(())
    }
}

/// Upstream sorts the finished texts, so `10 x` stands before `2 y`.
pub(crate) fn histogram(reasons: &BTreeMap<String, usize>) -> String {
    let mut lines: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    lines.sort_unstable();
    lines.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis(nodes: usize, reasons: &[(&str, usize)]) -> Diagnosis {
        let reasons = reasons
            .iter()
            .map(|(reason, count)| ((*reason).to_owned(), *count))
            .collect();
        Diagnosis {
            nodes,
            reasons,
            ..Diagnosis::default()
        }
    }

    #[test]
    fn the_message_reads_as_upstream_writes_it() {
        let mut d = diagnosis(
            12,
            &[("node(s) had untolerated taint(s)", 10), ("Insufficient cpu", 2)],
        );
        assert_eq!(
            d.to_string(),
            "0/12 nodes are available: 10 node(s) had untolerated taint(s), 2 Insufficient cpu."
        );
        d.post_filter =
            Some("preemption: 0/12 nodes are available: 12 Preemption is not helpful for scheduling.".into());
        assert!(d.to_string().ends_with("2 Insufficient cpu. preemption: 0/12 nodes are available: 12 Preemption is not helpful for scheduling."));
        d.pre_filter = Some("node(s) didn't satisfy plugin NodeAffinity".into());
        assert!(
            d.to_string().starts_with(
                "0/12 nodes are available: node(s) didn't satisfy plugin NodeAffinity. preemption"
            )
        );
        assert_eq!(
            diagnosis(0, &[]).to_string(),
            "no nodes available to schedule pods"
        );
    }
}
