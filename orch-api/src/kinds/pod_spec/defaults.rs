//! What an open field of a pod's spec means.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::kinds::text::{default_text, drop_empty, drop_false, text};
use crate::kinds::{persistent_volume_claim, resources};

/// The defaults that pods and templates share. What only pods get is in `pod`.
pub(crate) fn default_spec(spec: &mut core::PodSpec) {
    default_text(&mut spec.dns_policy, "ClusterFirst");
    default_text(&mut spec.restart_policy, "Always");
    default_text(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(30);
    service_account(spec);
    for flag in [&mut spec.host_network, &mut spec.host_pid, &mut spec.host_ipc] {
        drop_false(flag);
    }
    for name in [
        &mut spec.node_name,
        &mut spec.hostname,
        &mut spec.subdomain,
        &mut spec.priority_class_name,
    ] {
        drop_empty(name);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        default_volume(volume);
    }
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        default_container(container);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        default_ephemeral(container);
    }
    if let Some(requirements) = &mut spec.resources {
        resources::normalise(requirements);
    }
    resources::normalise_list(&mut spec.overhead);
}

/// `serviceAccount` is the old name of `serviceAccountName`; objects carry both.
fn service_account(spec: &mut core::PodSpec) {
    drop_empty(&mut spec.service_account);
    drop_empty(&mut spec.service_account_name);
    if spec.service_account_name.is_none() {
        spec.service_account_name.clone_from(&spec.service_account);
    }
    spec.service_account.clone_from(&spec.service_account_name);
}

fn default_container(container: &mut core::Container) {
    let policy = image_pull_policy(text(&container.image));
    default_text(&mut container.image_pull_policy, policy);
    default_text(&mut container.termination_message_path, "/dev/termination-log");
    default_text(&mut container.termination_message_policy, "File");
    for flag in [
        &mut container.stdin,
        &mut container.stdin_once,
        &mut container.tty,
    ] {
        drop_false(flag);
    }
    default_ports(&mut container.ports);
    default_env(&mut container.env);
    default_mounts(&mut container.volume_mounts);
    // Upstream writes `resources: {}` on every container, so that later patches find the field.
    resources::normalise(container.resources.get_or_insert_default());
    for probe in [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ]
    .into_iter()
    .flatten()
    {
        default_probe(probe);
    }
    if let Some(lifecycle) = &mut container.lifecycle {
        for hook in [&mut lifecycle.post_start, &mut lifecycle.pre_stop]
            .into_iter()
            .flatten()
        {
            default_http_get(&mut hook.http_get);
        }
    }
    default_security(&mut container.security_context);
}

fn default_ephemeral(container: &mut core::EphemeralContainer) {
    let policy = image_pull_policy(text(&container.image));
    default_text(&mut container.image_pull_policy, policy);
    default_text(&mut container.termination_message_path, "/dev/termination-log");
    default_text(&mut container.termination_message_policy, "File");
    default_env(&mut container.env);
    default_mounts(&mut container.volume_mounts);
    container.resources.get_or_insert_default();
    default_security(&mut container.security_context);
}

fn default_security(context: &mut Option<core::SecurityContext>) {
    if let Some(context) = context
        && let Some(mount) = &mut context.proc_mount
        && mount.is_empty()
    {
        *mount = "Default".to_owned();
    }
}

/// `Always` for the tag `latest`, said or implied, and `IfNotPresent` for all others.
fn image_pull_policy(image: &str) -> &'static str {
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    if name.contains('@') {
        return "IfNotPresent";
    }
    match name.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn default_ports(ports: &mut Option<Vec<core::ContainerPort>>) {
    for port in ports.iter_mut().flatten() {
        default_text(&mut port.protocol, "TCP");
        drop_empty(&mut port.name);
        drop_empty(&mut port.host_ip);
        if port.host_port == Some(0) {
            port.host_port = None;
        }
    }
}

fn default_env(vars: &mut Option<Vec<core::EnvVar>>) {
    for var in vars.iter_mut().flatten() {
        drop_empty(&mut var.value);
        let Some(from) = &mut var.value_from else { continue };
        if let Some(field) = &mut from.field_ref {
            default_text(&mut field.api_version, "v1");
        }
        if let Some(resource) = &mut from.resource_field_ref {
            resource.divisor.get_or_insert_with(resources::zero);
        }
        if let Some(key) = &mut from.file_key_ref {
            key.optional.get_or_insert(false);
        }
    }
}

fn default_mounts(mounts: &mut Option<Vec<core::VolumeMount>>) {
    for mount in mounts.iter_mut().flatten() {
        drop_false(&mut mount.read_only);
        drop_empty(&mut mount.sub_path);
        drop_empty(&mut mount.sub_path_expr);
        if mount.recursive_read_only.as_deref() == Some("") {
            mount.recursive_read_only = None;
        }
    }
}

fn default_probe(probe: &mut core::Probe) {
    let counts = [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ];
    for (count, default) in counts {
        if count.unwrap_or(0) == 0 {
            *count = Some(default);
        }
    }
    if probe.initial_delay_seconds == Some(0) {
        probe.initial_delay_seconds = None;
    }
    default_http_get(&mut probe.http_get);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn default_http_get(action: &mut Option<core::HTTPGetAction>) {
    if let Some(action) = action {
        default_text(&mut action.path, "/");
        default_text(&mut action.scheme, "HTTP");
        if action.port == IntOrString::String(String::new()) {
            action.port = IntOrString::Int(0);
        }
    }
}

fn default_volume(volume: &mut core::Volume) {
    const MODE: i32 = 0o644;
    if is_bare(volume) {
        volume.empty_dir = Some(core::EmptyDirVolumeSource::default());
    }
    if let Some(source) = &mut volume.empty_dir {
        drop_empty(&mut source.medium);
        if let Some(limit) = &mut source.size_limit {
            resources::canonicalise(limit);
        }
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(MODE);
        default_downward(&mut source.items);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(MODE);
        for source in source.sources.iter_mut().flatten() {
            default_projection(source);
        }
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.image {
        let policy = image_pull_policy(text(&source.reference));
        default_text(&mut source.pull_policy, policy);
    }
    if let Some(template) = volume
        .ephemeral
        .as_mut()
        .and_then(|source| source.volume_claim_template.as_mut())
    {
        persistent_volume_claim::default_spec(&mut template.spec);
    }
    default_disks(volume);
}

fn default_disks(volume: &mut core::Volume) {
    if let Some(disk) = &mut volume.iscsi {
        default_text(&mut disk.iscsi_interface, "default");
    }
    if let Some(disk) = &mut volume.rbd {
        default_text(&mut disk.pool, "rbd");
        default_text(&mut disk.user, "admin");
        default_text(&mut disk.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut volume.azure_disk {
        default_text(&mut disk.caching_mode, "ReadWrite");
        default_text(&mut disk.kind, "Shared");
        default_text(&mut disk.fs_type, "ext4");
        disk.read_only.get_or_insert(false);
    }
    if let Some(disk) = &mut volume.scale_io {
        default_text(&mut disk.storage_mode, "ThinProvisioned");
        default_text(&mut disk.fs_type, "xfs");
    }
}

/// A volume with a name and nothing else.
fn is_bare(volume: &core::Volume) -> bool {
    *volume
        == core::Volume {
            name: volume.name.clone(),
            ..core::Volume::default()
        }
}

fn default_downward(files: &mut Option<Vec<core::DownwardAPIVolumeFile>>) {
    for file in files.iter_mut().flatten() {
        if let Some(field) = &mut file.field_ref {
            default_text(&mut field.api_version, "v1");
        }
        if let Some(resource) = &mut file.resource_field_ref {
            resource.divisor.get_or_insert_with(resources::zero);
        }
    }
}

fn default_projection(source: &mut core::VolumeProjection) {
    if let Some(token) = &mut source.service_account_token {
        token.expiration_seconds.get_or_insert(3600);
    }
    if let Some(downward) = &mut source.downward_api {
        default_downward(&mut downward.items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_image_is_always_pulled() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("registry:5000/nginx", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/team/nginx:1.27", "IfNotPresent"),
            ("nginx@sha256:0123", "IfNotPresent"),
            ("nginx:latest@sha256:0123", "IfNotPresent"),
        ] {
            assert_eq!(image_pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_container_gets_upstreams_defaults() {
        let mut spec: core::PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [{
                "name": "web",
                "image": "nginx:1.27",
                "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            }],
            "hostNetwork": false,
            "volumes": [
                {"name": "bare"},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
                {"name": "host", "hostPath": {"path": "/"}},
            ],
        }))
        .unwrap();
        default_spec(&mut spec);
        assert_eq!(
            serde_json::to_value(&spec).unwrap(),
            serde_json::json!({
                "containers": [{
                    "name": "web",
                    "image": "nginx:1.27",
                    "imagePullPolicy": "IfNotPresent",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "livenessProbe": {
                        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
                    },
                    "env": [{
                        "name": "NODE",
                        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}},
                    }],
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30,
                "volumes": [
                    {"name": "bare", "emptyDir": {}},
                    {"name": "token", "projected": {
                        "defaultMode": 420,
                        "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}],
                    }},
                    {"name": "host", "hostPath": {"path": "/", "type": ""}},
                ],
            })
        );
    }
}
