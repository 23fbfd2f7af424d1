//! From a pod's specification to what the runtime is asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    Container, Pod, PodDNSConfig, PodSecurityContext, SeccompProfile, SecurityContext as ApiSecurity,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use orch_core::quantity::Quantity;

use super::env::{ConfigError, expand};
use super::view::{grace_seconds, spec};
use crate::runtime::{
    Capabilities, ContainerConfig, ContainerMetadata, DnsConfig, LinuxContainerResources, Mount,
    NamespaceMode, PodSandboxConfig, PodSandboxMetadata, SecurityContext, labels,
};

/// The cluster's DNS, for pods with the policy `ClusterFirst`.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterDns {
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) domain: String,
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_default()
}

/// The directory of a pod's logs: `NAMESPACE_NAME_UID`, as upstream lays them out.
pub(crate) fn log_directory(root: &Path, pod: &Pod) -> PathBuf {
    let meta = &pod.metadata;
    root.join(format!(
        "{}_{}_{}",
        text(&meta.namespace),
        text(&meta.name),
        text(&meta.uid)
    ))
}

/// The host name inside a pod.
pub(crate) fn hostname(pod: &Pod, node_name: &str) -> String {
    let spec = spec(pod);
    if spec.host_network == Some(true) {
        return node_name.to_owned();
    }
    let name = spec
        .hostname
        .clone()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| text(&pod.metadata.name));
    name.chars()
        .take(63)
        .collect::<String>()
        .trim_end_matches(['-', '.'])
        .to_owned()
}

/// A pod's sandbox.
pub(crate) fn sandbox(
    pod: &Pod,
    attempt: u32,
    node_name: &str,
    log_root: &Path,
    dns: &ClusterDns,
) -> PodSandboxConfig {
    let spec = spec(pod);
    let meta = &pod.metadata;
    let host_or_pod = |host: Option<bool>| {
        if host == Some(true) {
            NamespaceMode::Node
        } else {
            NamespaceMode::Pod
        }
    };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Node,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    let sysctls = spec
        .security_context
        .as_ref()
        .and_then(|security| security.sysctls.as_ref());
    PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: text(&meta.name),
            uid: text(&meta.uid),
            namespace: text(&meta.namespace),
            attempt,
        },
        hostname: hostname(pod, node_name),
        log_directory: log_directory(log_root, pod),
        dns_config: dns_config(pod, dns),
        labels: pod_labels(pod),
        annotations: [(labels::GRACE_PERIOD.to_owned(), grace_seconds(pod).to_string())].into(),
        network: host_or_pod(spec.host_network),
        ipc: host_or_pod(spec.host_ipc),
        pid,
        sysctls: sysctls
            .into_iter()
            .flatten()
            .map(|s| (s.name.clone(), s.value.clone()))
            .collect(),
        cgroup_parent: cgroup_parent(pod),
    }
}

fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    let meta = &pod.metadata;
    [
        (labels::POD_NAME.to_owned(), text(&meta.name)),
        (labels::POD_NAMESPACE.to_owned(), text(&meta.namespace)),
        (labels::POD_UID.to_owned(), text(&meta.uid)),
    ]
    .into()
}

fn qos_class(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.qos_class.as_deref())
        .unwrap_or("Burstable")
}

fn cgroup_parent(pod: &Pod) -> String {
    let uid = text(&pod.metadata.uid);
    match qos_class(pod) {
        "Guaranteed" => format!("kubepods/pod{uid}"),
        class => format!("kubepods/{}/pod{uid}", class.to_lowercase()),
    }
}

/// `None`: the host's own settings.
fn dns_config(pod: &Pod, cluster: &ClusterDns) -> Option<DnsConfig> {
    let spec = spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let in_cluster =
        policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && spec.host_network != Some(true));
    let base = if policy == "None" {
        Some(DnsConfig::default())
    } else if in_cluster && !cluster.servers.is_empty() {
        let namespace = text(&pod.metadata.namespace);
        let domain = &cluster.domain;
        Some(DnsConfig {
            servers: cluster.servers.iter().map(ToString::to_string).collect(),
            searches: vec![
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.clone(),
            ],
            options: vec!["ndots:5".into()],
        })
    } else {
        None
    };
    match &spec.dns_config {
        None => base,
        Some(extra) => Some(with_extra(base.unwrap_or_else(host_dns), extra)),
    }
}

/// The host's settings, as far as a pod's can be added to them.
fn host_dns() -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in std::fs::read_to_string("/etc/resolv.conf")
        .unwrap_or_default()
        .lines()
    {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.servers.extend(words.next()),
            Some("search") => dns.searches = words.collect(),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

fn with_extra(mut dns: DnsConfig, extra: &PodDNSConfig) -> DnsConfig {
    let add = |list: &mut Vec<String>, more: &Option<Vec<String>>| {
        for entry in more
            .iter()
            .flatten()
            .filter(|entry| !list.contains(entry))
            .cloned()
            .collect::<Vec<_>>()
        {
            list.push(entry);
        }
    };
    add(&mut dns.servers, &extra.nameservers);
    add(&mut dns.searches, &extra.searches);
    for option in extra.options.iter().flatten() {
        let name = text(&option.name);
        dns.options
            .retain(|known| known.split(':').next() != Some(name.as_str()));
        dns.options.push(match &option.value {
            Some(value) => format!("{name}:{value}"),
            None => name,
        });
    }
    dns
}

/// The pod's `/etc/hosts`.
pub(crate) fn hosts_file(pod: &Pod, pod_ips: &[String], hostname: &str) -> String {
    let spec = spec(pod);
    let mut file = if spec.host_network == Some(true) {
        let own = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        format!("# Kubernetes-managed hosts file (host network).\n{own}")
    } else {
        let mut file = String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        for ip in pod_ips {
            file.push_str(&format!("{ip}\t{hostname}\n"));
        }
        file
    };
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        file.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        file.push_str(&format!(
            "{}\t{}\n",
            alias.ip,
            alias.hostnames.as_deref().unwrap_or_default().join("\t")
        ));
    }
    file
}

/// All that a container's configuration is made of, beside the specification.
#[derive(Debug)]
pub(crate) struct Ingredients {
    pub(crate) attempt: u32,
    pub(crate) envs: Vec<(String, String)>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Bytes of memory that the node has.
    pub(crate) node_memory: i64,
}

/// A container of a pod.
pub(crate) fn container(
    pod: &Pod,
    container: &Container,
    from: Ingredients,
) -> Result<ContainerConfig, ConfigError> {
    if container
        .volume_devices
        .as_ref()
        .is_some_and(|devices| !devices.is_empty())
    {
        return Err(ConfigError(
            "block volumes (volumeDevices) are not built into this agent yet".into(),
        ));
    }
    let expand_all =
        |list: &Option<Vec<String>>| list.iter().flatten().map(|arg| expand(arg, &from.envs)).collect();
    let mut container_labels = pod_labels(pod);
    container_labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    Ok(ContainerConfig {
        metadata: ContainerMetadata {
            name: container.name.clone(),
            attempt: from.attempt,
        },
        image: text(&container.image),
        command: expand_all(&container.command),
        args: expand_all(&container.args),
        working_dir: text(&container.working_dir),
        mounts: from.mounts,
        labels: container_labels,
        annotations: from.annotations,
        log_path: format!("{}/{}.log", container.name, from.attempt).into(),
        stdin: container.stdin == Some(true),
        tty: container.tty == Some(true),
        resources: resources(pod, container, from.node_memory)?,
        security_context: security(
            spec(pod).security_context.as_ref(),
            container.security_context.as_ref(),
        ),
        stop_signal: container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.stop_signal.clone()),
        envs: from.envs,
    })
}

fn resources(
    pod: &Pod,
    container: &Container,
    node_memory: i64,
) -> Result<LinuxContainerResources, ConfigError> {
    const PERIOD: i64 = 100_000;
    let resources = container.resources.clone().unwrap_or_default();
    let get =
        |from: &Option<BTreeMap<String, ApiQuantity>>, name: &str| -> Result<Option<Quantity>, ConfigError> {
            let Some(quantity) = from.as_ref().and_then(|map| map.get(name)) else {
                return Ok(None);
            };
            quantity
                .0
                .parse()
                .map(Some)
                .map_err(|error| ConfigError(format!("{name} {:?}: {error}", quantity.0)))
        };
    let cpu_limit = get(&resources.limits, "cpu")?.map(|q| q.milli_value());
    let cpu_request = get(&resources.requests, "cpu")?
        .map(|q| q.milli_value())
        .or(cpu_limit)
        .unwrap_or(0);
    let memory_limit = get(&resources.limits, "memory")?.map(|q| q.value());
    let memory_request = get(&resources.requests, "memory")?
        .map(|q| q.value())
        .or(memory_limit)
        .unwrap_or(0);
    Ok(LinuxContainerResources {
        cpu_shares: Some(
            u64::try_from(cpu_request * 1024 / 1000)
                .unwrap_or(0)
                .clamp(2, 262_144),
        ),
        cpu_period: cpu_limit.map(|_| PERIOD.unsigned_abs()),
        cpu_quota: cpu_limit.map(|milli| (milli * PERIOD / 1000).max(1000)),
        memory_limit: memory_limit
            .and_then(|bytes| u64::try_from(bytes).ok())
            .filter(|bytes| *bytes > 0),
        pids_limit: None,
        oom_score_adj: Some(oom_score(pod, memory_request, node_memory)),
    })
}

/// How soon the kernel takes this container when memory runs out: the less it asked for, the sooner.
fn oom_score(pod: &Pod, memory_request: i64, node_memory: i64) -> i32 {
    match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ if node_memory <= 0 => 999,
        _ => {
            let share = i128::from(memory_request) * 1000 / i128::from(node_memory);
            i32::try_from(1000 - share.min(1000)).unwrap_or(0).clamp(3, 999)
        }
    }
}

fn security(pod: Option<&PodSecurityContext>, container: Option<&ApiSecurity>) -> SecurityContext {
    let own = container.cloned().unwrap_or_default();
    let pod = pod.cloned().unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let mut groups = pod.supplemental_groups.unwrap_or_default();
    groups.extend(pod.fs_group.filter(|group| !groups.contains(group)));
    SecurityContext {
        run_as_user: own.run_as_user.or(pod.run_as_user),
        run_as_group: own.run_as_group.or(pod.run_as_group),
        run_as_non_root: own.run_as_non_root.or(pod.run_as_non_root) == Some(true),
        supplemental_groups: groups,
        privileged,
        capabilities: Capabilities {
            add: capabilities.add.unwrap_or_default(),
            drop: capabilities.drop.unwrap_or_default(),
        },
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        seccomp_profile: if privileged {
            None
        } else {
            own.seccomp_profile
                .or(pod.seccomp_profile)
                .as_ref()
                .and_then(seccomp)
        },
    }
}

fn seccomp(profile: &SeccompProfile) -> Option<String> {
    match profile.type_.as_str() {
        "Unconfined" => None,
        "Localhost" => Some(format!("Localhost/{}", text(&profile.localhost_profile))),
        other => Some(other.to_owned()),
    }
}

/// What of a pod this agent does not do yet; such a pod is refused with this message.
pub(crate) fn not_built(pod: &Pod) -> Option<String> {
    let spec = spec(pod);
    let init = spec.init_containers.iter().flatten();
    for container in init.chain(&spec.containers) {
        let probes = [
            &container.liveness_probe,
            &container.readiness_probe,
            &container.startup_probe,
        ];
        for probe in probes.into_iter().flatten() {
            if probe.grpc.is_some() {
                return Some(format!(
                    "container {}: gRPC probes are not built into this agent yet",
                    container.name
                ));
            }
            if probe
                .http_get
                .as_ref()
                .is_some_and(|get| get.scheme.as_deref() == Some("HTTPS"))
            {
                return Some(format!(
                    "container {}: HTTPS probes are not built into this agent yet",
                    container.name
                ));
            }
        }
    }
    if spec.host_users == Some(false) {
        return Some("user namespaces (hostUsers: false) are not built into this agent yet".into());
    }
    if spec
        .runtime_class_name
        .as_ref()
        .is_some_and(|name| !name.is_empty())
    {
        return Some("runtimeClassName is not built into this agent yet".into());
    }
    spec.resource_claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty())
        .then(|| "resourceClaims are not built into this agent yet".into())
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "JSON literals read better by value")]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1"}, "spec": spec, "status": {"qosClass": "Burstable"},
        }))
        .unwrap()
    }

    #[test]
    fn cluster_dns_is_used_by_policy() {
        let dns = ClusterDns {
            servers: vec!["10.96.0.10".parse().unwrap()],
            domain: "cluster.local".into(),
        };
        let found = dns_config(&pod(json!({"containers": []})), &dns).unwrap();
        assert_eq!(
            found.searches,
            ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]
        );
        assert_eq!(
            dns_config(&pod(json!({"containers": [], "dnsPolicy": "Default"})), &dns),
            None
        );
        assert_eq!(
            dns_config(&pod(json!({"containers": [], "hostNetwork": true})), &dns),
            None
        );
        let own = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"], "options": [{"name": "ndots", "value": "2"}]}});
        let found = dns_config(&pod(own), &dns).unwrap();
        assert_eq!(
            (found.servers, found.options),
            (vec!["192.0.2.1".to_owned()], vec!["ndots:2".to_owned()])
        );
    }

    #[test]
    fn requests_and_limits_become_shares_quota_and_bytes() {
        let pod = pod(
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}}]}),
        );
        let found = resources(&pod, &spec(&pod).containers[0], 1 << 30).unwrap();
        assert_eq!(
            (found.cpu_shares, found.cpu_quota, found.memory_limit),
            (Some(256), Some(50_000), Some(64 << 20))
        );
        assert_eq!(found.oom_score_adj, Some(938));
    }

    #[test]
    fn what_is_not_built_is_named() {
        let spec = json!({"containers": [{"name": "c", "livenessProbe": {"grpc": {"port": 1}}}]});
        assert_eq!(
            not_built(&pod(spec)).unwrap(),
            "container c: gRPC probes are not built into this agent yet"
        );
        assert_eq!(not_built(&pod(json!({"containers": [{"name": "c"}]}))), None);
    }
}
