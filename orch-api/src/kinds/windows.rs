//! What pods for Windows may and may not say.

use k8s_openapi::api::core::v1 as core;

use super::check::{Check, Path};
use super::format;
use super::text::list;

/// The syntax of `windowsOptions`.
pub(crate) fn options(check: &mut Check, options: Option<&core::WindowsSecurityContextOptions>, path: &Path) {
    let Some(options) = options else { return };
    if let Some(name) = &options.gmsa_credential_spec_name {
        check.faults(
            &path.child("gmsaCredentialSpecName"),
            name,
            format::dns1123_subdomain(name),
        );
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let at = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            check.invalid(&at, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > 64 * 1024 {
            check.invalid(&at, spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = &options.run_as_user_name {
        user_name(check, name, &path.child("runAsUserName"));
    }
}

fn user_name(check: &mut Check, name: &str, path: &Path) {
    if name.is_empty() {
        check.invalid(path, name, "runAsUserName cannot be an empty string");
        return;
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        check.invalid(path, name, "runAsUserName cannot contain control characters");
        return;
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => {
            check.invalid(path, name, "runAsUserName cannot contain more than one backslash");
            return;
        }
    };
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            check.invalid(
                path,
                name,
                "runAsUserName's Domain length must be under 256 characters",
            );
        }
        if !is_net_bios(domain) && !is_dns(domain) {
            check.invalid(
                path,
                name,
                "runAsUserName's Domain doesn't match the NetBios nor the DNS format",
            );
        }
    }
    if user.is_empty() {
        check.invalid(path, name, "runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        check.invalid(
            path,
            name,
            "runAsUserName's User length must not be longer than 104 characters",
        );
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        check.invalid(
            path,
            name,
            "runAsUserName's User cannot contain only periods or spaces",
        );
    }
    if user.chars().any(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        let why = "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]";
        check.invalid(path, name, why);
    }
}

fn is_net_bios(domain: &str) -> bool {
    (1..=15).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.chars().any(|c| "\\/:*?\"<>|".contains(c))
}

fn is_dns(domain: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    domain.split('.').all(|label| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(|b| inner(*b))
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// Visits the containers of a pod, of every sort, with their paths and security contexts.
fn contexts(spec: &core::PodSpec, path: &Path, mut visit: impl FnMut(Option<&core::SecurityContext>, Path)) {
    for (i, one) in list(&spec.init_containers).iter().enumerate() {
        visit(
            one.security_context.as_ref(),
            path.child("initContainers").index(i),
        );
    }
    for (i, one) in spec.containers.iter().enumerate() {
        visit(one.security_context.as_ref(), path.child("containers").index(i));
    }
    for (i, one) in list(&spec.ephemeral_containers).iter().enumerate() {
        visit(
            one.security_context.as_ref(),
            path.child("ephemeralContainers").index(i),
        );
    }
}

/// The `os` field, and what a pod of that system may not set.
pub(crate) fn os(check: &mut Check, spec: &core::PodSpec, path: &Path) {
    let Some(os) = &spec.os else { return };
    match os.name.as_str() {
        "linux" => linux(check, spec, path),
        "windows" => windows(check, spec, path),
        "" => check.required(&path.child("os").child("name"), "cannot be empty"),
        other => check.not_supported(&path.child("os"), other, &["linux", "windows"]),
    }
}

fn linux(check: &mut Check, spec: &core::PodSpec, path: &Path) {
    const WHY: &str = "windows options cannot be set for a linux pod";
    if spec
        .security_context
        .as_ref()
        .is_some_and(|context| context.windows_options.is_some())
    {
        check.forbidden(&path.child("securityContext").child("windowsOptions"), WHY);
    }
    contexts(spec, path, |context, at| {
        if context.is_some_and(|context| context.windows_options.is_some()) {
            check.forbidden(&at.child("securityContext").child("windowsOptions"), WHY);
        }
    });
}

const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";

fn windows(check: &mut Check, spec: &core::PodSpec, path: &Path) {
    let given = [
        ("hostUsers", spec.host_users.is_some()),
        ("hostPID", spec.host_pid == Some(true)),
        ("hostIPC", spec.host_ipc == Some(true)),
        ("shareProcessNamespace", spec.share_process_namespace.is_some()),
    ];
    forbid(check, &given, path);
    if let Some(context) = &spec.security_context {
        let given = [
            ("appArmorProfile", context.app_armor_profile.is_some()),
            ("seLinuxOptions", context.se_linux_options.is_some()),
            ("seccompProfile", context.seccomp_profile.is_some()),
            ("fsGroup", context.fs_group.is_some()),
            ("fsGroupChangePolicy", context.fs_group_change_policy.is_some()),
            ("sysctls", !list(&context.sysctls).is_empty()),
            ("runAsUser", context.run_as_user.is_some()),
            ("runAsGroup", context.run_as_group.is_some()),
            ("supplementalGroups", context.supplemental_groups.is_some()),
            (
                "supplementalGroupsPolicy",
                context.supplemental_groups_policy.is_some(),
            ),
            ("seLinuxChangePolicy", context.se_linux_change_policy.is_some()),
        ];
        forbid(check, &given, &path.child("securityContext"));
    }
    contexts(spec, path, |context, at| {
        if let Some(context) = context {
            let given = [
                ("appArmorProfile", context.app_armor_profile.is_some()),
                ("seLinuxOptions", context.se_linux_options.is_some()),
                ("seccompProfile", context.seccomp_profile.is_some()),
                ("capabilities", context.capabilities.is_some()),
                (
                    "readOnlyRootFilesystem",
                    context.read_only_root_filesystem.is_some(),
                ),
                ("privileged", context.privileged.is_some()),
                (
                    "allowPrivilegeEscalation",
                    context.allow_privilege_escalation.is_some(),
                ),
                ("procMount", context.proc_mount.is_some()),
                ("runAsUser", context.run_as_user.is_some()),
                ("runAsGroup", context.run_as_group.is_some()),
            ];
            forbid(check, &given, &at.child("securityContext"));
        }
    });
}

fn forbid(check: &mut Check, given: &[(&'static str, bool)], path: &Path) {
    for (field, given) in given {
        if *given {
            check.forbidden(&path.child(*field), NOT_ON_WINDOWS);
        }
    }
}

/// Host process containers: all of a pod or none, and on the host's network.
pub(crate) fn host_process(check: &mut Check, spec: &core::PodSpec, path: &Path) {
    let of_pod = spec
        .security_context
        .as_ref()
        .and_then(|context| context.windows_options.as_ref());
    let of_pod = of_pod.and_then(|options| options.host_process);
    let (mut all, mut host) = (0, 0);
    contexts(spec, path, |context, at| {
        all += 1;
        let own = context
            .and_then(|context| context.windows_options.as_ref())
            .and_then(|one| one.host_process);
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            let at = at
                .child("securityContext")
                .child("windowsOptions")
                .child("hostProcess");
            check.invalid(
                &at,
                own,
                format!("pod hostProcess value must be identical if both are specified, was {pod}"),
            );
        }
        if own.or(of_pod) == Some(true) {
            host += 1;
        }
    });
    if host == 0 {
        return;
    }
    if host != all {
        let why =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        check.invalid(path, "", why);
    }
    if spec.host_network != Some(true) {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        check.invalid(&path.child("hostNetwork"), false, why);
    }
}
