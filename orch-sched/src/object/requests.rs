use super::pod::{SlimContainer, SlimContainerStatus, SlimPod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use orch_core::quantity::Quantity;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What scoring assumes of a container that requests no processor time: 100m, upstream's figure.
pub const DEFAULT_MILLI_CPU_REQUEST: i64 = 100;
/// What scoring assumes of a container that requests no memory: 200 MiB, upstream's figure.
pub const DEFAULT_MEMORY_REQUEST: i64 = 200 * 1024 * 1024;

/// Amounts beyond 2^53 are cut, so that sums over a node's pods stay within 64 bits.
const MAX_AMOUNT: i64 = 1 << 53;

/// What a pod takes of a node, as integers.
///
/// The sum over containers and sidecars, or the most that any step of the init sequence needs if that is more; replaced by
/// the pod-level requests where set; plus the overhead. While a pod is being resized it counts with the most of what is
/// asked, admitted and in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requests {
    /// Processor time in thousandths of a core.
    pub milli_cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Ephemeral storage in bytes.
    pub ephemeral_storage: i64,
    /// Huge pages, extended and attachable resources, by name, sorted.
    pub scalar: Vec<(Arc<str>, i64)>,
    /// Like `milli_cpu`, where each container without a request counts with [`DEFAULT_MILLI_CPU_REQUEST`].
    pub nonzero_milli_cpu: i64,
    /// Like `memory`, where each container without a request counts with [`DEFAULT_MEMORY_REQUEST`].
    pub nonzero_memory: i64,
}

impl Requests {
    pub(crate) fn of(pod: &SlimPod) -> Self {
        let plain = pod_amounts(pod, Defaults::NONE);
        let pod_level = pod_level(pod).is_some_and(|level| level.names().any(is_pod_level_resource));
        let defaults = Defaults {
            cpu: !pod_level || plain.get("cpu").is_zero(),
            memory: !pod_level || plain.get("memory").is_zero(),
        };
        let nonzero = pod_amounts(pod, defaults);
        Self {
            milli_cpu: plain.milli("cpu"),
            memory: plain.whole("memory"),
            ephemeral_storage: plain.whole("ephemeral-storage"),
            scalar: plain
                .names()
                .filter(|n| is_scalar_resource(n))
                .map(|n| (n.into(), plain.whole(n)))
                .collect(),
            nonzero_milli_cpu: nonzero.milli("cpu"),
            nonzero_memory: nonzero.whole("memory"),
        }
    }

    /// Requested amount of a resource: milli-cores for `cpu`, whole units for the rest; 0 when absent.
    #[must_use]
    pub fn get(&self, resource: &str) -> i64 {
        match resource {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            _ => self
                .scalar
                .iter()
                .find(|(name, _)| &**name == resource)
                .map_or(0, |(_, amount)| *amount),
        }
    }

    /// True when nothing but a place is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.milli_cpu == 0 && self.memory == 0 && self.ephemeral_storage == 0 && self.scalar.is_empty()
    }
}

/// True for the resources that are counted in whole units besides memory and storage: extended resources
/// (`example.com/gpu`), huge pages and attachable volumes.
#[must_use]
pub fn is_scalar_resource(name: &str) -> bool {
    if name.contains('/') {
        return name.contains("kubernetes.io/") || !name.starts_with("requests.");
    }
    name.starts_with("hugepages-") || name.starts_with("attachable-volumes-")
}

fn is_pod_level_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Exact amounts by resource name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Amounts(BTreeMap<String, Quantity>);

impl Amounts {
    /// Quantities that do not parse count as absent: the API server admits none.
    pub(crate) fn of(list: Option<&BTreeMap<String, Text>>) -> Self {
        let parsed = |(name, text): (&String, &Text)| Some((name.clone(), Quantity::try_from(text).ok()?));
        Self(list.into_iter().flatten().filter_map(parsed).collect())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn get(&self, name: &str) -> Quantity {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Thousandths, rounded up.
    pub(crate) fn milli(&self, name: &str) -> i64 {
        self.get(name).milli_value().clamp(0, MAX_AMOUNT)
    }

    /// Whole units, rounded up.
    pub(crate) fn whole(&self, name: &str) -> i64 {
        self.get(name).value().clamp(0, MAX_AMOUNT)
    }

    fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() += *amount;
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, &amount) in &other.0 {
            let mine = self.0.entry(name.clone()).or_insert(amount);
            *mine = amount.max(*mine);
        }
    }
}

/// For which resources a container without a request counts with a default.
#[derive(Clone, Copy)]
struct Defaults {
    cpu: bool,
    memory: bool,
}

impl Defaults {
    const NONE: Self = Self {
        cpu: false,
        memory: false,
    };

    fn fill(self, amounts: &mut Amounts) {
        if self.cpu {
            let cpu = Quantity::from_millis(DEFAULT_MILLI_CPU_REQUEST);
            amounts.0.entry("cpu".to_owned()).or_insert(cpu);
        }
        if self.memory {
            let memory = Quantity::from_bytes(DEFAULT_MEMORY_REQUEST);
            amounts.0.entry("memory".to_owned()).or_insert(memory);
        }
    }
}

fn pod_amounts(pod: &SlimPod, defaults: Defaults) -> Amounts {
    let mut total = container_amounts(pod, defaults);
    if let Some(level) = pod_level(pod) {
        total.0.extend(
            level
                .0
                .into_iter()
                .filter(|(name, _)| is_pod_level_resource(name)),
        );
    }
    total.add(&Amounts::of(pod.spec.overhead.as_ref()));
    total
}

fn pod_level(pod: &SlimPod) -> Option<Amounts> {
    let requests = pod.spec.resources.as_ref()?.requests.as_ref()?;
    Some(Amounts::of(Some(requests)))
}

/// Containers and sidecars run together; each plain init container runs beside the sidecars started before it.
fn container_amounts(pod: &SlimPod, defaults: Defaults) -> Amounts {
    let mut total = Amounts::default();
    for container in &pod.spec.containers {
        total.add(&one_container(
            pod,
            container,
            pod.status.container_statuses.as_deref(),
            defaults,
        ));
    }
    let (mut sidecars, mut init_peak) = (Amounts::default(), Amounts::default());
    for container in pod.spec.init_containers.iter().flatten() {
        let mut step = one_container(
            pod,
            container,
            pod.status.init_container_statuses.as_deref(),
            defaults,
        );
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&step);
            sidecars.add(&step);
            init_peak.raise_to(&sidecars);
        } else {
            step.add(&sidecars);
            init_peak.raise_to(&step);
        }
    }
    total.raise_to(&init_peak);
    total
}

fn one_container(
    pod: &SlimPod,
    container: &SlimContainer,
    statuses: Option<&[SlimContainerStatus]>,
    defaults: Defaults,
) -> Amounts {
    let asked = Amounts::of(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let status = statuses
        .into_iter()
        .flatten()
        .find(|s| s.name == container.name && s.resources.is_some());
    let mut amounts = match status {
        None => asked,
        Some(status) => {
            let mut held = Amounts::of(status.resources.as_ref().and_then(|r| r.requests.as_ref()));
            held.raise_to(&Amounts::of(status.allocated_resources.as_ref()));
            if !resize_is_infeasible(pod) {
                held.raise_to(&asked);
            }
            held
        }
    };
    defaults.fill(&mut amounts);
    amounts
}

fn resize_is_infeasible(pod: &SlimPod) -> bool {
    let pending = pod
        .status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodResizePending");
    pending.is_some_and(|c| c.reason.as_deref() == Some("Infeasible"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(spec: &serde_json::Value) -> Requests {
        Requests::of(&serde_json::from_value(serde_json::json!({ "spec": spec })).unwrap())
    }

    fn container(name: &str, cpu: &str, memory: &str) -> serde_json::Value {
        serde_json::json!({"name": name, "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn sidecar(name: &str, cpu: &str, memory: &str) -> serde_json::Value {
        let mut sidecar = container(name, cpu, memory);
        sidecar["restartPolicy"] = "Always".into();
        sidecar
    }

    #[test]
    fn the_largest_of_containers_together_and_each_init_step_counts() {
        let r = requests(&serde_json::json!({
            "initContainers": [container("i1", "2", "1G"), container("i2", "2", "3G")],
            "containers": [container("c1", "2", "1G"), container("c2", "1", "1G")]}));
        assert_eq!((r.milli_cpu, r.memory), (3000, 3_000_000_000));
    }

    #[test]
    fn sidecars_run_beside_containers_and_beside_later_init_steps() {
        let r = requests(&serde_json::json!({
            "initContainers": [container("i1", "4", "1"), sidecar("s", "1", "1"), container("i2", "5", "1")],
            "containers": [container("c", "2", "1")]}));
        assert_eq!(r.milli_cpu, 6000, "the second init step with the sidecar: 5 + 1");
        let r = requests(&serde_json::json!({
            "initContainers": [container("i1", "4", "1"), sidecar("s", "1", "1")],
            "containers": [container("c", "4", "1")]}));
        assert_eq!(r.milli_cpu, 5000, "container with the sidecar: 4 + 1");
    }

    #[test]
    fn overhead_comes_on_top_of_everything() {
        let r = requests(
            &serde_json::json!({"overhead": {"cpu": "250m", "memory": "120Mi"},
            "initContainers": [container("i", "2", "1Mi")], "containers": [container("c", "1", "2Mi")]}),
        );
        assert_eq!((r.milli_cpu, r.memory), (2250, 122 * 1024 * 1024));
    }

    #[test]
    fn pod_level_requests_replace_the_sum_of_the_containers() {
        let r = requests(
            &serde_json::json!({"resources": {"requests": {"cpu": "1500m"}}, "overhead": {"cpu": "100m"},
            "containers": [container("a", "4", "1Mi"), {"name": "b"}]}),
        );
        assert_eq!((r.milli_cpu, r.memory), (1600, 1024 * 1024));
        assert_eq!(r.nonzero_milli_cpu, 1600);
    }

    #[test]
    fn containers_without_requests_count_for_scores_only() {
        let r = requests(
            &serde_json::json!({"containers": [{"name": "a"}, container("b", "1", "1Mi"), {"name": "c"}]}),
        );
        assert_eq!((r.milli_cpu, r.memory), (1000, 1024 * 1024));
        assert_eq!((r.nonzero_milli_cpu, r.nonzero_memory), (1200, 401 * 1024 * 1024));
    }

    #[test]
    fn sub_unit_requests_are_summed_exactly_and_rounded_up_once() {
        let r = requests(
            &serde_json::json!({"containers": [container("a", "100u", "100m"), container("b", "100u", "100m")]}),
        );
        assert_eq!((r.milli_cpu, r.memory), (1, 1));
    }

    #[test]
    fn extended_resources_and_huge_pages_are_counted_and_unknown_names_are_not() {
        let r = requests(
            &serde_json::json!({"containers": [{"name": "a", "resources": {"requests":
            {"example.com/gpu": "2", "hugepages-2Mi": "4Mi", "storage": "1Gi", "requests.example.com/x": "1"}}}]}),
        );
        let expected: [(Arc<str>, i64); 2] = [
            ("example.com/gpu".into(), 2),
            ("hugepages-2Mi".into(), 4 * 1024 * 1024),
        ];
        assert_eq!(r.scalar, expected);
    }

    #[test]
    fn a_pod_being_resized_counts_with_the_most_unless_it_cannot_be() {
        let pod = |reason: &str| {
            serde_json::json!({
            "spec": {"containers": [container("c", "3", "1Mi")]},
            "status": {"conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                "containerStatuses": [{"name": "c", "allocatedResources": {"cpu": "2"}, "resources": {"requests": {"cpu": "1"}}}]}})
        };
        let milli_cpu = |reason| Requests::of(&serde_json::from_value(pod(reason)).unwrap()).milli_cpu;
        assert_eq!(milli_cpu("Deferred"), 3000);
        assert_eq!(milli_cpu("Infeasible"), 2000);
    }
}
