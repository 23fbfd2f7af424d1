//! Security contexts of pods and containers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;

use super::volumes::descending_path;
use crate::kinds::check::{Check, Path};
use crate::kinds::text::{list, text};
use crate::kinds::{format, windows};

pub(super) fn pod(check: &mut Check, context: &core::PodSecurityContext, spec: &core::PodSpec, path: &Path) {
    for (field, id) in [
        ("fsGroup", context.fs_group),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ] {
        if let Some(id) = id {
            check.id(&path.child(field), id);
        }
    }
    for (i, id) in list(&context.supplemental_groups).iter().enumerate() {
        check.id(&path.child("supplementalGroups").index(i), *id);
    }
    if spec.host_pid == Some(true) && spec.share_process_namespace == Some(true) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        check.invalid(&path.child("shareProcessNamespace"), true, why);
    }
    sysctls(check, list(&context.sysctls), spec, &path.child("sysctls"));
    let choices: [(&'static str, &Option<String>, [&str; 2]); 3] = [
        (
            "fsGroupChangePolicy",
            &context.fs_group_change_policy,
            ["Always", "OnRootMismatch"],
        ),
        (
            "supplementalGroupsPolicy",
            &context.supplemental_groups_policy,
            ["Merge", "Strict"],
        ),
        (
            "seLinuxChangePolicy",
            &context.se_linux_change_policy,
            ["MountOption", "Recursive"],
        ),
    ];
    for (field, choice, supported) in choices {
        check.optional_one_of(&path.child(field), choice.as_deref(), &supported);
    }
    seccomp(
        check,
        context.seccomp_profile.as_ref(),
        &path.child("seccompProfile"),
    );
    windows::options(
        check,
        context.windows_options.as_ref(),
        &path.child("windowsOptions"),
    );
    app_armor(
        check,
        context.app_armor_profile.as_ref(),
        &path.child("appArmorProfile"),
    );
}

pub(super) fn container(check: &mut Check, context: &core::SecurityContext, host_users: bool, path: &Path) {
    for (field, id) in [
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ] {
        if let Some(id) = id {
            check.id(&path.child(field), id);
        }
    }
    if let Some(mount) = &context.proc_mount {
        let at = path.child("procMount");
        check.optional_one_of(&at, Some(mount), &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            check.invalid(&at, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(
        check,
        context.seccomp_profile.as_ref(),
        &path.child("seccompProfile"),
    );
    escalation(check, context, path);
    windows::options(
        check,
        context.windows_options.as_ref(),
        &path.child("windowsOptions"),
    );
    app_armor(
        check,
        context.app_armor_profile.as_ref(),
        &path.child("appArmorProfile"),
    );
}

fn escalation(check: &mut Check, context: &core::SecurityContext, path: &Path) {
    if context.allow_privilege_escalation != Some(false) {
        return;
    }
    if context.privileged == Some(true) {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        check.invalid(path, context, why);
    }
    let added = context
        .capabilities
        .as_ref()
        .map_or(&[][..], |capabilities| list(&capabilities.add));
    if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
        let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        check.invalid(path, context, why);
    }
}

fn seccomp(check: &mut Check, profile: Option<&core::SeccompProfile>, path: &Path) {
    let Some(profile) = profile else { return };
    let at = path.child("type");
    if profile.type_.is_empty() {
        check.required(&at, "type is required when seccompProfile is set");
    } else {
        check.one_of(
            &at,
            &profile.type_,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        );
    }
    let at = path.child("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => check.required(&at, "must be set when seccomp type is Localhost"),
        ("Localhost", Some(file)) => descending_path(check, file, &at),
        (_, Some(_)) => check.invalid(&at, profile, "can only be set when seccomp type is Localhost"),
        (_, None) => {}
    }
}

fn app_armor(check: &mut Check, profile: Option<&core::AppArmorProfile>, path: &Path) {
    const LOCALHOST: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = profile else { return };
    let at = path.child("localhostProfile");
    match profile.type_.as_str() {
        "Localhost" => {
            let name = text(&profile.localhost_profile);
            if name.trim() != name {
                check.invalid(&at, name, "must not be padded with whitespace");
            } else if name.is_empty() {
                check.required(&at, LOCALHOST);
            }
            if name.len() > 4095 {
                check.too_long(&at, 4095);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if let Some(name) = &profile.localhost_profile {
                check.invalid(&at, name, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => check.required(
            &path.child("type"),
            "type is required when appArmorProfile is set",
        ),
        other => {
            check.not_supported(
                &path.child("type"),
                other,
                &["Localhost", "RuntimeDefault", "Unconfined"],
            );
        }
    }
}

fn sysctls(check: &mut Check, sysctls: &[core::Sysctl], spec: &core::PodSpec, path: &Path) {
    let mut names = BTreeSet::new();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let at = path.index(i).child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            check.required(&at, "");
        } else if !format::is_sysctl(name) {
            let why = "must have at most 253 characters and match regex \
                       ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            check.invalid(&at, name, why);
        } else if !names.insert(name) {
            check.duplicate(&at, name);
        }
        match sysctl_namespace(name) {
            Some("net") if spec.host_network == Some(true) => {
                check.invalid(&at, name, "may not be specified when 'hostNetwork' is true");
            }
            Some("ipc") if spec.host_ipc == Some(true) => {
                check.invalid(&at, name, "may not be specified when 'hostIPC' is true");
            }
            _ => {}
        }
    }
}

/// The kernel namespace to which a sysctl belongs.
fn sysctl_namespace(name: &str) -> Option<&'static str> {
    let name = name.replace('/', ".");
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    if ipc || name == "kernel.sem" {
        Some("ipc")
    } else if name.starts_with("net.") {
        Some("net")
    } else {
        None
    }
}

/// Pods with user namespaces of their own share no other namespace with the host.
pub(super) fn host_users(check: &mut Check, spec: &core::PodSpec, path: &Path) {
    if spec.host_users != Some(false) {
        return;
    }
    let shared = [
        ("hostNetwork", spec.host_network),
        ("hostPID", spec.host_pid),
        ("hostIPC", spec.host_ipc),
    ];
    for (field, shared) in shared {
        if shared == Some(true) {
            check.forbidden(&path.child(field), "when `hostUsers` is false");
        }
    }
}
