//! What runs in a pod: the rules of a pod's spec, shared by pods and the templates of workloads.

mod affinity;
mod containers;
mod defaults;
mod env;
mod mounts;
mod probes;
mod projected;
mod security;
mod sources;
mod template;
mod volumes;

use k8s_openapi::api::core::v1 as core;

pub(crate) use affinity::{node_selector, taint_effect};
pub(crate) use containers::is_sidecar;
pub(crate) use defaults::default_spec;
pub(crate) use probes::port;
pub(crate) use sources::csi_driver;
pub(crate) use template::{default_template, validate_template};
pub(crate) use volumes::host_path;

use super::check::{Check, Path};
use super::text::{entries, list, text};
use super::{format, resources, selectors, windows};

/// For which object a spec is checked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Context<'a> {
    /// A pod itself, rather than a template.
    pub(crate) is_pod: bool,
    /// The pod's name, when it is known already.
    pub(crate) pod_name: Option<&'a str>,
}

/// All rules of a pod's spec.
pub(crate) fn validate(check: &mut Check, spec: &core::PodSpec, context: &Context<'_>, path: &Path) {
    if spec.termination_grace_period_seconds.is_none() {
        check.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::validate(check, list(&spec.volumes), context, &path.child("volumes"));
    resource_claims(check, list(&spec.resource_claims), &path.child("resourceClaims"));
    let shared = containers::Shared {
        context,
        volumes: &volumes,
        claims: &env::claim_names(spec),
        grace_period: spec.termination_grace_period_seconds,
        restart_policy: text(&spec.restart_policy),
        host_users: spec.host_users.unwrap_or(true),
    };
    containers::regular(check, &spec.containers, &shared, &path.child("containers"));
    let init = list(&spec.init_containers);
    containers::init(
        check,
        init,
        &spec.containers,
        &shared,
        &path.child("initContainers"),
    );
    containers::ephemeral(check, spec, &shared, &path.child("ephemeralContainers"));
    if let Some(requirements) = &spec.resources {
        resources::pod(check, requirements, spec, &path.child("resources"));
    }
    policies(check, spec, path);
    identity(check, spec, path);
    network(check, spec, context, path);
    placement(check, spec, path);
    if let Some(context) = &spec.security_context {
        security::pod(check, context, spec, &path.child("securityContext"));
    }
    security::host_users(check, spec, path);
    windows::host_process(check, spec, path);
    windows::os(check, spec, path);
    unsupported(check, spec, path);
}

fn policies(check: &mut Check, spec: &core::PodSpec, path: &Path) {
    let restart = text(&spec.restart_policy);
    check.one_of(
        &path.child("restartPolicy"),
        restart,
        &["Always", "OnFailure", "Never"],
    );
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    check.one_of(&path.child("dnsPolicy"), text(&spec.dns_policy), &dns);
    if let Some(policy) = &spec.preemption_policy {
        check.one_of(
            &path.child("preemptionPolicy"),
            policy,
            &["PreemptLowerPriority", "Never"],
        );
    }
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let why = "must be between 1 and 2147483647, inclusive";
        check.invalid(&path.child("activeDeadlineSeconds"), seconds, why);
    }
    for (i, gate) in list(&spec.readiness_gates).iter().enumerate() {
        let at = path.child("readinessGates").index(i).child("conditionType");
        check.faults(
            &at,
            &gate.condition_type,
            format::qualified_name(&gate.condition_type),
        );
    }
    let gates = list(&spec.scheduling_gates);
    for (i, gate) in gates.iter().enumerate() {
        let at = path.child("schedulingGates").index(i);
        check.faults(&at, &gate.name, format::qualified_name(&gate.name));
        if gates[..i].iter().any(|other| other.name == gate.name) {
            check.duplicate(&at, &gate.name);
        }
    }
}

fn identity(check: &mut Check, spec: &core::PodSpec, path: &Path) {
    let subdomains = [
        ("serviceAccountName", text(&spec.service_account_name)),
        ("nodeName", text(&spec.node_name)),
        ("priorityClassName", text(&spec.priority_class_name)),
    ];
    for (field, name) in subdomains {
        if !name.is_empty() {
            check.faults(&path.child(field), name, format::dns1123_subdomain(name));
        }
    }
    if let Some(class) = &spec.runtime_class_name {
        check.faults(
            &path.child("runtimeClassName"),
            class,
            format::dns1123_subdomain(class),
        );
    }
    for (field, name) in [
        ("hostname", text(&spec.hostname)),
        ("subdomain", text(&spec.subdomain)),
    ] {
        if !name.is_empty() {
            check.faults(&path.child(field), name, format::dns1123_label(name));
        }
    }
    if let Some(name) = &spec.hostname_override {
        let at = path.child("hostnameOverride");
        if name.len() > 64 {
            check.too_long(&at, 64);
        }
        check.faults(&at, name, format::dns1123_subdomain(name));
        if spec.set_hostname_as_fqdn == Some(true) {
            check.forbidden(&at, "must not be set when `setHostnameAsFQDN` is true");
        }
        if spec.host_network == Some(true) {
            check.forbidden(&at, "must not be set when `hostNetwork` is true");
        }
    }
}

fn network(check: &mut Check, spec: &core::PodSpec, context: &Context<'_>, path: &Path) {
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        let at = path.child("hostAliases").index(i);
        check.ip(&at.child("ip"), &alias.ip);
        for (j, name) in list(&alias.hostnames).iter().enumerate() {
            check.faults(
                &at.child("hostnames").index(j),
                name,
                format::dns1123_subdomain(name),
            );
        }
    }
    dns_config(check, spec, &path.child("dnsConfig"));
    if spec.host_network != Some(true) {
        return;
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in list(&container.ports).iter().enumerate() {
            let host_port = port.host_port.unwrap_or(0);
            // A template may leave the host port open: it is filled in when the pod is made.
            if (context.is_pod || host_port != 0) && host_port != port.container_port {
                let at = path
                    .child("containers")
                    .index(i)
                    .child("ports")
                    .index(j)
                    .child("hostPort");
                check.invalid(
                    &at,
                    host_port,
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}

fn dns_config(check: &mut Check, spec: &core::PodSpec, path: &Path) {
    let none = text(&spec.dns_policy) == "None";
    let Some(config) = &spec.dns_config else {
        if none {
            check.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let (servers, searches) = (list(&config.nameservers), list(&config.searches));
    let at = path.child("nameservers");
    if none && servers.is_empty() {
        check.required(
            &at,
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
        return;
    }
    if servers.len() > 3 {
        check.invalid(&at, servers, "must not have more than 3 nameservers");
    }
    for (i, server) in servers.iter().enumerate() {
        check.ip(&at.index(i), server);
    }
    let at = path.child("searches");
    if searches.len() > 32 {
        check.invalid(&at, searches, "must not have more than 32 search paths");
    }
    if searches.join(" ").len() > 2048 {
        let why = "must not have more than 2048 characters (including spaces) in the search list";
        check.invalid(&at, searches, why);
    }
    for (i, search) in searches.iter().enumerate() {
        if search != "." {
            // Underscores are allowed in search paths, which otherwise are domain names.
            let name = search.strip_suffix('.').unwrap_or(search);
            check.faults(
                &at.index(i),
                name,
                format::dns1123_subdomain(&name.replace('_', "x")),
            );
        }
    }
    for (i, option) in list(&config.options).iter().enumerate() {
        if text(&option.name).is_empty() {
            check.required(&path.child("options").index(i), "must not be empty");
        }
    }
}

fn placement(check: &mut Check, spec: &core::PodSpec, path: &Path) {
    selectors::labels(check, &spec.node_selector, &path.child("nodeSelector"));
    if let Some(affinity) = &spec.affinity {
        affinity::affinity(check, affinity, &path.child("affinity"));
    }
    affinity::tolerations(check, list(&spec.tolerations), &path.child("tolerations"));
    let constraints = list(&spec.topology_spread_constraints);
    affinity::topology_spread(check, constraints, &path.child("topologySpreadConstraints"));
    for (name, quantity) in entries(&spec.overhead) {
        let at = path.child("overhead").key(name);
        resources::container_name(check, name, &at);
        resources::quantity(check, name, quantity, &at);
    }
}

fn resource_claims(check: &mut Check, claims: &[core::PodResourceClaim], path: &Path) {
    for (i, claim) in claims.iter().enumerate() {
        let at = path.index(i);
        check.name(&at.child("name"), &claim.name, format::dns1123_label);
        if claims[..i].iter().any(|other| other.name == claim.name) {
            check.duplicate(&at.child("name"), &claim.name);
        }
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                let why =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                check.invalid(&at, claim, why);
            }
            (None, None) => {
                check.invalid(
                    &at,
                    claim,
                    "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                );
            }
            (Some(name), None) => {
                check.faults(
                    &at.child("resourceClaimName"),
                    name,
                    format::dns1123_subdomain(name),
                );
            }
            (None, Some(name)) => {
                check.faults(
                    &at.child("resourceClaimTemplateName"),
                    name,
                    format::dns1123_subdomain(name),
                );
            }
        }
    }
}

/// Alpha fields, which upstream drops in silence unless a feature gate is open. Here they are refused: nothing would
/// act on them.
fn unsupported(check: &mut Check, spec: &core::PodSpec, path: &Path) {
    const WHY: &str = "is not supported by this server";
    if !list(&spec.eviction_responders).is_empty() {
        check.forbidden(&path.child("evictionResponders"), WHY);
    }
    if spec.scheduling_group.is_some() {
        check.forbidden(&path.child("schedulingGroup"), WHY);
    }
    let all = [
        ("containers", spec.containers.as_slice()),
        ("initContainers", list(&spec.init_containers)),
    ];
    for (field, containers) in all {
        for (i, container) in containers.iter().enumerate() {
            for (j, mount) in list(&container.volume_mounts).iter().enumerate() {
                if !list(&mount.bind_mount_options).is_empty() {
                    let at = path.child(field).index(i).child("volumeMounts").index(j);
                    check.forbidden(&at.child("bindMountOptions"), WHY);
                }
            }
        }
    }
}
