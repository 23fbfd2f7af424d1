//! Containers of every sort: regular, init, sidecar and ephemeral.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;

use super::volumes::Volumes;
use super::{Context, env, mounts, probes, security};
use crate::kinds::check::{Check, Path};
use crate::kinds::text::{list, text};
use crate::kinds::{format, resources};

/// What the containers of a pod share.
pub(super) struct Shared<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) volumes: &'a Volumes<'a>,
    pub(super) claims: &'a BTreeSet<&'a str>,
    pub(super) grace_period: Option<i64>,
    pub(super) restart_policy: &'a str,
    pub(super) host_users: bool,
}

/// The regular containers: at least one, with names and host ports of their own.
pub(super) fn regular(check: &mut Check, containers: &[core::Container], shared: &Shared<'_>, path: &Path) {
    if containers.is_empty() {
        check.required(path, "");
        return;
    }
    let mut names = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        common(check, container, shared, &path);
        if !names.insert(container.name.as_str()) {
            check.duplicate(&path.child("name"), &container.name);
        }
        hooks_and_probes(check, container, shared, &path);
        restart_rules(check, container, &path);
    }
    host_ports(check, containers.iter().enumerate(), path);
}

/// Init containers: with `restartPolicy: Always` they are sidecars and may have probes, without it they may not.
pub(super) fn init(
    check: &mut Check,
    containers: &[core::Container],
    regular: &[core::Container],
    shared: &Shared<'_>,
    path: &Path,
) {
    let mut names: BTreeSet<&str> = regular.iter().map(|container| container.name.as_str()).collect();
    for (i, container) in containers.iter().enumerate() {
        let at = path.index(i);
        common(check, container, shared, &at);
        if !names.insert(container.name.as_str()) && !container.name.is_empty() {
            check.duplicate(&at.child("name"), &container.name);
        }
        host_ports(check, [(i, container)], path);
        restart_rules(check, container, &at);
        if is_sidecar(container) {
            hooks_and_probes(check, container, shared, &at);
        } else {
            no_hooks_or_probes(check, container, &at);
        }
    }
}

/// Whether an init container keeps running beside the others.
pub(crate) fn is_sidecar(container: &core::Container) -> bool {
    text(&container.restart_policy) == "Always"
}

fn no_hooks_or_probes(check: &mut Check, container: &core::Container, path: &Path) {
    let given = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    for (field, given) in given {
        if given {
            check.forbidden(
                &path.child(field),
                "may not be set for init containers without restartPolicy=Always",
            );
        }
    }
}

fn hooks_and_probes(check: &mut Check, container: &core::Container, shared: &Shared<'_>, path: &Path) {
    if let Some(lifecycle) = &container.lifecycle {
        probes::lifecycle(check, lifecycle, shared.grace_period, &path.child("lifecycle"));
    }
    if let Some(probe) = &container.liveness_probe {
        probes::liveness(check, probe, &path.child("livenessProbe"));
    }
    if let Some(probe) = &container.readiness_probe {
        probes::readiness(check, probe, &path.child("readinessProbe"));
    }
    if let Some(probe) = &container.startup_probe {
        probes::liveness(check, probe, &path.child("startupProbe"));
    }
}

fn restart_rules(check: &mut Check, container: &core::Container, path: &Path) {
    const POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
    let at = path.child("restartPolicy");
    if let Some(policy) = &container.restart_policy
        && !POLICIES.contains(&policy.as_str())
    {
        check.not_supported(&at, policy, &POLICIES);
    }
    let rules = list(&container.restart_policy_rules);
    let rules_path = path.child("restartPolicyRules");
    if !rules.is_empty() && container.restart_policy.is_none() {
        check.required(&at, "must specify restartPolicy when restart rules are used");
    }
    if rules.len() > 20 {
        check.too_many(&rules_path, rules.len(), 20);
    }
    for (i, rule) in rules.iter().enumerate() {
        restart_rule(check, rule, &rules_path.index(i));
    }
}

fn restart_rule(check: &mut Check, rule: &core::ContainerRestartRule, path: &Path) {
    const ACTIONS: [&str; 1] = ["Restart"];
    const OPERATORS: [&str; 2] = ["In", "NotIn"];
    if !ACTIONS.contains(&rule.action.as_str()) {
        check.not_supported(&path.child("action"), &rule.action, &ACTIONS);
    }
    let path = path.child("exitCodes");
    let Some(codes) = &rule.exit_codes else {
        check.required(&path, "must be specified");
        return;
    };
    if !OPERATORS.contains(&codes.operator.as_str()) {
        check.not_supported(&path.child("operator"), &codes.operator, &OPERATORS);
    }
    let count = list(&codes.values).len();
    if count == 0 {
        check.required(&path.child("values"), "must specify at least one value");
    } else if count > 255 {
        check.too_many(&path.child("values"), count, 255);
    }
}

fn common(check: &mut Check, container: &core::Container, shared: &Shared<'_>, path: &Path) {
    check.name(&path.child("name"), &container.name, format::dns1123_label);
    image(
        check,
        text(&container.image),
        shared.context.is_pod,
        &path.child("image"),
    );
    message_policy(
        check,
        text(&container.termination_message_policy),
        &path.child("terminationMessagePolicy"),
    );
    ports(check, list(&container.ports), &path.child("ports"));
    env::vars(check, list(&container.env), shared.volumes, &path.child("env"));
    env::sources(check, list(&container.env_from), &path.child("envFrom"));
    mounts::mounts(check, container, shared.volumes, &path.child("volumeMounts"));
    mounts::devices(check, container, shared.volumes, &path.child("volumeDevices"));
    pull_policy(
        check,
        text(&container.image_pull_policy),
        &path.child("imagePullPolicy"),
    );
    if let Some(requirements) = &container.resources {
        resources::container(check, requirements, shared.claims, &path.child("resources"));
    }
    resize_policy(
        check,
        list(&container.resize_policy),
        shared.restart_policy,
        &path.child("resizePolicy"),
    );
    if let Some(context) = &container.security_context {
        security::container(check, context, shared.host_users, &path.child("securityContext"));
    }
}

fn image(check: &mut Check, image: &str, is_pod: bool, path: &Path) {
    if image.is_empty() {
        check.required(path, "");
    }
    // Templates tolerate padding: some tools use a lone space as a placeholder.
    if is_pod && image.trim() != image {
        check.invalid(path, image, "must not have leading or trailing whitespace");
    }
}

fn message_policy(check: &mut Check, policy: &str, path: &Path) {
    const SUPPORTED: [&str; 2] = ["File", "FallbackToLogsOnError"];
    check.one_of(path, policy, &SUPPORTED);
}

pub(super) fn pull_policy(check: &mut Check, policy: &str, path: &Path) {
    const SUPPORTED: [&str; 3] = ["Always", "IfNotPresent", "Never"];
    check.one_of(path, policy, &SUPPORTED);
}

fn ports(check: &mut Check, ports: &[core::ContainerPort], path: &Path) {
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            let faults = format::port_name(name);
            if faults.is_empty() && !names.insert(name) {
                check.duplicate(&path.child("name"), name);
            }
            check.faults(&path.child("name"), name, faults);
        }
        if port.container_port == 0 {
            check.required(&path.child("containerPort"), "");
        } else {
            check.port(&path.child("containerPort"), port.container_port);
        }
        if let Some(host_port) = port.host_port.filter(|port| *port != 0) {
            check.port(&path.child("hostPort"), host_port);
        }
        check.one_of(&path.child("protocol"), text(&port.protocol), &format::PROTOCOLS);
    }
}

fn host_ports<'a>(
    check: &mut Check,
    containers: impl IntoIterator<Item = (usize, &'a core::Container)>,
    path: &Path,
) {
    let mut taken = BTreeSet::new();
    for (i, container) in containers {
        for (p, port) in list(&container.ports).iter().enumerate() {
            let Some(host_port) = port.host_port.filter(|port| *port != 0) else {
                continue;
            };
            let key = format!("{}/{}/{host_port}", text(&port.protocol), text(&port.host_ip));
            let at = path.index(i).child("ports").index(p).child("hostPort");
            if taken.contains(&key) {
                check.duplicate(&at, &key);
            }
            taken.insert(key);
        }
    }
}

fn resize_policy(
    check: &mut Check,
    policies: &[core::ContainerResizePolicy],
    restart_policy: &str,
    path: &Path,
) {
    let mut seen = BTreeSet::new();
    for (i, policy) in policies.iter().enumerate() {
        if !seen.insert(policy.resource_name.as_str()) {
            check.duplicate(&path.index(i), &policy.resource_name);
        }
        check.one_of(path, &policy.resource_name, &["cpu", "memory"]);
        check.one_of(path, &policy.restart_policy, &["NotRequired", "RestartContainer"]);
        if restart_policy == "Never" && policy.restart_policy != "NotRequired" {
            check.invalid(
                path,
                &policy.restart_policy,
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            );
        }
    }
}

/// Ephemeral containers: debugging aids, so without ports, probes, hooks and resources.
pub(super) fn ephemeral(check: &mut Check, spec: &core::PodSpec, shared: &Shared<'_>, path: &Path) {
    let others: BTreeSet<&str> = spec
        .containers
        .iter()
        .chain(list(&spec.init_containers))
        .map(|container| container.name.as_str())
        .collect();
    let mut names = others.clone();
    for (i, ephemeral) in list(&spec.ephemeral_containers).iter().enumerate() {
        let path = path.index(i);
        common(check, &as_container(ephemeral), shared, &path);
        if !names.insert(ephemeral.name.as_str()) {
            check.duplicate(&path.child("name"), &ephemeral.name);
        }
        let target = text(&ephemeral.target_container_name);
        if !target.is_empty() && !others.contains(target) {
            check.not_found(&path.child("targetContainerName"), target);
        }
        not_for_ephemeral(check, ephemeral, &path);
    }
}

fn not_for_ephemeral(check: &mut Check, container: &core::EphemeralContainer, path: &Path) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let resources_given = container
        .resources
        .as_ref()
        .is_some_and(|one| *one != core::ResourceRequirements::default());
    let given = [
        ("ports", !list(&container.ports).is_empty()),
        ("resources", resources_given),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
        ("resizePolicy", !list(&container.resize_policy).is_empty()),
        ("restartPolicy", container.restart_policy.is_some()),
        (
            "restartPolicyRules",
            !list(&container.restart_policy_rules).is_empty(),
        ),
    ];
    for (field, given) in given {
        if given {
            check.forbidden(&path.child(field), WHY);
        }
    }
    for (i, mount) in list(&container.volume_mounts).iter().enumerate() {
        let path = path.child("volumeMounts").index(i);
        if !text(&mount.sub_path).is_empty() {
            check.forbidden(&path.child("subPath"), WHY);
        }
        if !text(&mount.sub_path_expr).is_empty() {
            check.forbidden(&path.child("subPathExpr"), WHY);
        }
    }
}

/// An ephemeral container seen as an ordinary one, for the rules both share.
fn as_container(ephemeral: &core::EphemeralContainer) -> core::Container {
    let one = ephemeral.clone();
    core::Container {
        args: one.args,
        command: one.command,
        env: one.env,
        env_from: one.env_from,
        image: one.image,
        image_pull_policy: one.image_pull_policy,
        lifecycle: one.lifecycle,
        liveness_probe: one.liveness_probe,
        name: one.name,
        ports: one.ports,
        readiness_probe: one.readiness_probe,
        resize_policy: one.resize_policy,
        resources: one.resources,
        restart_policy: one.restart_policy,
        restart_policy_rules: one.restart_policy_rules,
        security_context: one.security_context,
        startup_probe: one.startup_probe,
        stdin: one.stdin,
        stdin_once: one.stdin_once,
        termination_message_path: one.termination_message_path,
        termination_message_policy: one.termination_message_policy,
        tty: one.tty,
        volume_devices: one.volume_devices,
        volume_mounts: one.volume_mounts,
        working_dir: one.working_dir,
    }
}
