//! The engine under random adds, updates, deletes, late confirmations, bind failures and another scheduler's bindings:
//! no node is over-committed by it, and no pod is lost.

use orch_sched::engine::{Assignment, Decision};
use orch_sched::permit::WaitingPods;
use orch_sched::policy::{Permit, Rejection, SchedulerPolicy};
use orch_sched::queue::QueueTimes;
use orch_sched::sample::{PodBuilder, node, pod};
use orch_sched::{Engine, PodInfo, Profile, cluster::Node};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

/// Makes some pods wait before they are bound, and rejects some.
struct Moody;

impl SchedulerPolicy for Moody {
    fn name(&self) -> &'static str {
        "Moody"
    }

    fn permit(&self, pod: &PodInfo, _: Node<'_>, waiting: &mut WaitingPods) -> Permit {
        let keys: Vec<_> = waiting.iter().map(|waiting| waiting.pod.key.clone()).collect();
        keys.iter().step_by(2).for_each(|key| waiting.allow(key, "Moody"));
        match pod.name.bytes().last() {
            Some(b'3') => Permit::Wait(Duration::from_secs(5)),
            Some(b'7') => Permit::Reject(Rejection::resolvable("not in the mood")),
            _ => Permit::Allow,
        }
    }
}

/// What an API server would know.
#[derive(Default)]
struct Api {
    nodes: BTreeMap<String, i64>,
    pods: BTreeMap<String, (PodBuilder, Option<String>)>,
    binding: Vec<Assignment>,
    serial: u32,
}

impl Api {
    fn used(&self, node: &str) -> i64 {
        let there = self.pods.values().filter(|(_, at)| at.as_deref() == Some(node));
        there.map(|(pod, _)| pod.build().requests.milli_cpu).sum()
    }
}

struct Soak {
    engine: Engine,
    api: Api,
    random: fastrand::Rng,
    now: Duration,
}

impl Soak {
    fn new(seed: u64) -> Self {
        let profile = Profile::upstream().policy(Moody);
        let engine = Engine::new(vec![profile], QueueTimes::default(), seed).expect("the profile is sound");
        Self {
            engine,
            api: Api::default(),
            random: fastrand::Rng::with_seed(seed),
            now: Duration::ZERO,
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.random.u64(..3000));
        match self.random.u8(..12) {
            0 => self.set_node(),
            1..5 => self.add_pod(),
            5 => self.delete_pod(),
            6 => self.touch_pod(),
            7 => self.bind_elsewhere(),
            _ => self.finish_bindings(2),
        }
        self.decide();
    }

    fn set_node(&mut self) {
        let name = format!("n{}", self.random.u32(..4));
        // Nodes only grow, so that what was placed once stays right.
        let cpu = self.api.nodes.get(&name).copied().unwrap_or(1000) + self.random.i64(0..3) * 500;
        self.api.nodes.insert(name.clone(), cpu);
        self.engine.set_node(node(&name).cpu(cpu).build(), self.now);
    }

    fn add_pod(&mut self) {
        self.api.serial += 1;
        let name = format!("p{}", self.api.serial);
        let built = pod(&name)
            .uid(&name)
            .cpu(self.random.i64(1..8) * 100)
            .priority(self.random.i32(..3));
        self.engine.set_pod(built.build(), self.now);
        self.api.pods.insert(name, (built, None));
    }

    fn any_pod(&mut self) -> Option<String> {
        let at = self.random.usize(..self.api.pods.len().max(1));
        self.api.pods.keys().nth(at).cloned()
    }

    fn delete_pod(&mut self) {
        let Some(name) = self.any_pod() else { return };
        let (gone, _) = self.api.pods.remove(&name).expect("it was there");
        self.engine.remove_pod(&gone.build().key, self.now);
    }

    fn touch_pod(&mut self) {
        let Some(name) = self.any_pod() else { return };
        let (touched, node) = self.api.pods.get_mut(&name).expect("it is there");
        *touched = touched
            .clone()
            .label("touched", &self.now.as_millis().to_string());
        let now = node.iter().fold(touched.clone(), |pod, node| pod.on(node));
        self.engine.set_pod(now.build(), self.now);
    }

    /// Another scheduler takes one of our pods, if there is room.
    fn bind_elsewhere(&mut self) {
        let (Some(name), Some(node)) = (self.any_pod(), self.api.nodes.keys().next().cloned()) else {
            return;
        };
        if self.api.pods[&name].1.is_none() && !self.reserved(&name, &node) {
            self.confirm(&name, &node);
        }
    }

    /// Whether the engine has promised the node's last room to others.
    fn reserved(&self, name: &str, node: &str) -> bool {
        let cluster = self.engine.cluster();
        let Some(id) = cluster.find(node) else { return true };
        let wanted = self.api.pods[name].0.build().requests.milli_cpu;
        cluster.node(id).requested("cpu") + wanted > cluster.node(id).allocatable("cpu")
    }

    fn confirm(&mut self, name: &str, node: &str) {
        let (pod, at) = self.api.pods.get_mut(name).expect("it is there");
        *at = Some(node.to_owned());
        let bound = pod.clone().on(node).build();
        self.engine.set_pod(bound, self.now);
    }

    fn finish_bindings(&mut self, most: usize) {
        for _ in 0..most.min(self.api.binding.len()) {
            let at = self.random.usize(..self.api.binding.len());
            let assignment = self.api.binding.swap_remove(at);
            let name = assignment.pod.name.clone();
            let free = self.api.pods.get(&name).is_some_and(|(_, node)| node.is_none());
            if !free || self.random.u8(..4) == 0 {
                self.engine.bind_failed(&assignment.pod.key, self.now);
            } else if self.random.bool() {
                self.confirm(&name, &assignment.node);
                self.engine.bound(&assignment.pod.key);
            } else {
                self.engine.bound(&assignment.pod.key);
                self.confirm(&name, &assignment.node);
            }
        }
    }

    fn decide(&mut self) {
        for _ in 0..self.random.u8(..6) {
            match self.engine.decide(self.now) {
                Some(Decision::Bind(assignment)) => self.api.binding.push(assignment),
                Some(Decision::Unschedulable(_)) => {}
                None => return,
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (name, cpu) in &self.api.nodes {
            prop_assert!(
                self.api.used(name) <= *cpu,
                "{name} holds {} of {cpu}",
                self.api.used(name)
            );
            let cluster = self.engine.cluster();
            let id = cluster.find(name).expect("the node is known");
            prop_assert!(
                cluster.node(id).requested("cpu") <= *cpu,
                "{name} is promised too much"
            );
        }
        let waiting = || {
            self.api
                .pods
                .values()
                .filter(|(_, node)| node.is_none())
                .map(|(pod, _)| pod.build())
        };
        let lost = waiting()
            .find(|pod| !self.engine.tracks(&pod.key))
            .map(|pod| pod.name);
        prop_assert_eq!(lost, None, "a pod is lost");
        let lengths = self.engine.queue_lengths();
        let queued = lengths.active + lengths.backoff + lengths.unschedulable + lengths.gated;
        prop_assert!(
            queued <= waiting().count(),
            "the queue holds a pod that has a node or is gone"
        );
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_overcommitted_and_nothing_is_lost(seed: u64) {
        let mut soak = Soak::new(seed);
        for _ in 0..150 {
            soak.step();
            soak.check()?;
        }
    }

    /// In the end, every pod that is not rejected for good and fits has a node.
    #[test]
    fn with_room_enough_every_pod_is_placed_in_the_end(seed: u64) {
        let mut soak = Soak::new(seed);
        (0..80).for_each(|_| soak.step());
        soak.engine.set_node(node("huge").cpu(1_000_000).build(), soak.now);
        soak.api.nodes.insert("huge".into(), 1_000_000);
        for _ in 0..200 {
            soak.now += Duration::from_secs(11);
            soak.decide();
            soak.finish_bindings(100);
        }
        let unplaced: Vec<_> = soak.api.pods.iter().filter(|(_, (_, node))| node.is_none()).map(|(name, _)| name).collect();
        // Those that are always rejected, and those that nobody let go in time.
        prop_assert!(unplaced.iter().all(|name| name.ends_with(['3', '7'])), "{unplaced:?}");
    }
}
