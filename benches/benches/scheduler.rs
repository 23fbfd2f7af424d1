//! Decisions in memory, with the shapes of upstream's `scheduler_perf` workloads.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use orch_sched::sample::{NodeBuilder, PodBuilder, node, pod, term};
use orch_sched::{Profile, Simulation};
use std::hint::black_box;

/// How many pods are placed in one round.
const PODS: usize = 200;

struct Workload {
    name: &'static str,
    node: fn(usize) -> NodeBuilder,
    pod: fn(usize) -> PodBuilder,
}

fn plain_node(i: usize) -> NodeBuilder {
    let name = format!("node-{i}");
    node(&name)
        .label("kubernetes.io/hostname", &name)
        .label("topology.kubernetes.io/zone", &format!("zone-{}", i % 3))
}

fn plain_pod(i: usize) -> PodBuilder {
    pod(&format!("pod-{i}")).cpu(100).memory(500 << 20)
}

const WORKLOADS: [Workload; 4] = [
    Workload {
        name: "SchedulingBasic",
        node: plain_node,
        pod: plain_pod,
    },
    Workload {
        name: "SchedulingNodeAffinity",
        node: plain_node,
        pod: |i| {
            let zones = term(&[("topology.kubernetes.io/zone", "In", &["zone-1", "zone-2"])]);
            plain_pod(i).required_node_affinity(vec![zones])
        },
    },
    Workload {
        name: "SchedulingWithTaints",
        node: |i| {
            if i % 2 == 0 {
                plain_node(i)
            } else {
                plain_node(i).taint("dedicated", "other", "NoSchedule")
            }
        },
        pod: plain_pod,
    },
    Workload {
        name: "SchedulingWithUnschedulableNodes",
        node: |i| {
            if i % 2 == 0 {
                plain_node(i)
            } else {
                plain_node(i).unschedulable()
            }
        },
        pod: plain_pod,
    },
];

fn simulation(workload: &Workload, nodes: usize) -> Simulation {
    let mut simulation = Simulation::new(vec![Profile::upstream()]).expect("upstream's profile is sound");
    for i in 0..nodes {
        simulation.add_node((workload.node)(i).build());
    }
    simulation
}

fn decisions(criterion: &mut Criterion) {
    for workload in &WORKLOADS {
        let mut group = criterion.benchmark_group(workload.name);
        group
            .throughput(Throughput::Elements(PODS as u64))
            .sample_size(20);
        for nodes in [1000, 5000] {
            let mut simulation = simulation(workload, nodes);
            let pods: Vec<_> = (0..PODS).map(|i| (workload.pod)(i).build()).collect();
            group.bench_function(BenchmarkId::from_parameter(nodes), |bencher| {
                bencher.iter_batched(
                    || pods.clone(),
                    |pods| {
                        pods.iter().cloned().for_each(|pod| simulation.add_pod(pod));
                        let outcomes = black_box(simulation.run());
                        assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()));
                        pods.iter().for_each(|pod| simulation.remove_pod(pod));
                    },
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
