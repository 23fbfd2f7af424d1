//! A policy from outside: pods that name a rack stay in it, and prefer its emptier half.
//!
//! Run: `cargo run -p orch-sched --example rack_policy`

#![allow(clippy::print_stdout, reason = "the example's output")]

use k8s_openapi::api::core::v1::{Node, Pod};
use orch_sched::policy::{PreFilter, PreScore, Rejection, SchedulerPolicy};
use orch_sched::{Cluster, PodInfo, Profile, Simulation, cluster::NodeSet, explain};
use serde_json::json;

struct SameRack;

fn wanted(pod: &PodInfo) -> Option<&str> {
    pod.annotations.get("example.com/rack").map(String::as_str)
}

impl SchedulerPolicy for SameRack {
    fn name(&self) -> &'static str {
        "SameRack"
    }

    fn pre_filter<'c>(&'c self, pod: &'c PodInfo, _: &'c Cluster) -> PreFilter<'c> {
        let Some(rack) = wanted(pod) else {
            return PreFilter::Skip;
        };
        PreFilter::each(move |node| match node.label("example.com/rack") {
            Some(label) if label == rack => Ok(()),
            _ => Err(Rejection::unresolvable(format!(
                "node(s) were not in rack {rack}"
            ))),
        })
    }

    fn pre_score<'c>(&'c self, _: &'c PodInfo, _: &'c Cluster, _: &NodeSet) -> PreScore<'c> {
        PreScore::each(|node| i64::from(node.pods().len() < 2) * 100)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let profile = Profile::upstream().weighted(SameRack, 2);
    let mut simulation = Simulation::new(vec![profile.clone()])?;
    for (name, rack) in [("n1", "left"), ("n2", "left"), ("n3", "right")] {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"example.com/rack": rack}},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
        }))?;
        simulation.add_node((&node).into());
    }
    for (name, rack) in [("a", "left"), ("b", "left"), ("c", "right"), ("d", "middle")] {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "annotations": {"example.com/rack": rack}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]},
        }))?;
        simulation.add_pod((&pod).into());
    }
    for outcome in simulation.run() {
        match &outcome.result {
            Ok(node) => println!("{} -> {node}", outcome.pod.name),
            Err(why) => {
                println!("{} stays pending: {why}", outcome.pod.name);
                for node in explain(&profile, simulation.cluster(), &outcome.pod).nodes {
                    let against = node
                        .verdicts
                        .iter()
                        .find_map(|(policy, verdict)| Some((policy, verdict.as_ref().err()?)));
                    if let Some((policy, reason)) = against {
                        println!("  {}: {policy} says {reason}", node.name);
                    }
                }
            }
        }
    }
    Ok(())
}
