//! What the node agent may report of a pod.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodStatus};

use crate::kinds::check::{Check, Path};
use crate::kinds::format;
use crate::kinds::pod_spec::is_sidecar;
use crate::kinds::text::{list, text};

pub(super) fn validate(check: &mut Check, new: &Pod, old: &Pod) {
    let empty = PodStatus::default();
    let (status, before) = (
        new.status.as_ref().unwrap_or(&empty),
        old.status.as_ref().unwrap_or(&empty),
    );
    let path = Path::new("status");
    for (i, condition) in list(&status.conditions).iter().enumerate() {
        let at = path.child("conditions").index(i).child("type");
        check.faults(&at, &condition.type_, format::qualified_name(&condition.type_));
    }
    let nominated = text(&status.nominated_node_name);
    if !nominated.is_empty() && nominated != text(&before.nominated_node_name) {
        check.faults(
            &path.child("nominatedNodeName"),
            nominated,
            format::dns1123_subdomain(nominated),
        );
    }
    check.immutable(&path.child("qosClass"), &status.qos_class, &before.qos_class);
    transitions(check, status, before, old.spec.as_ref(), &path);
    claims(check, new, status, &path.child("resourceClaimStatuses"));
    let own: Vec<&str> = list(&status.pod_ips).iter().map(|one| one.ip.as_str()).collect();
    addresses(check, &own, &path.child("podIPs"));
    let host: Vec<&str> = list(&status.host_ips).iter().map(|one| one.ip.as_str()).collect();
    addresses(check, &host, &path.child("hostIPs"));
    if let Some(first) = host.first()
        && *first != text(&status.host_ip)
    {
        check.invalid(
            &path.child("hostIPs").index(0).child("ip"),
            first,
            "must be equal to `hostIP`",
        );
    }
    users(
        check,
        list(&status.container_statuses),
        &path.child("containerStatuses"),
    );
    users(
        check,
        list(&status.init_container_statuses),
        &path.child("initContainerStatuses"),
    );
}

/// What has ended for good does not come back.
fn transitions(check: &mut Check, new: &PodStatus, old: &PodStatus, spec: Option<&PodSpec>, path: &Path) {
    let restarts = |name: &str, exit_code: i32| spec.is_some_and(|spec| may_restart(spec, name, exit_code));
    let main = (&new.container_statuses, &old.container_statuses);
    revived(check, main, restarts, &path.child("containerStatuses"));
    let init = (&new.init_container_statuses, &old.init_container_statuses);
    revived(check, init, restarts, &path.child("initContainerStatuses"));
    let ephemeral = (
        &new.ephemeral_container_statuses,
        &old.ephemeral_container_statuses,
    );
    revived(
        check,
        ephemeral,
        |_, _| false,
        &path.child("ephemeralContainerStatuses"),
    );
}

fn may_restart(spec: &PodSpec, name: &str, exit_code: i32) -> bool {
    let init = list(&spec.init_containers).iter().find(|one| one.name == name);
    let container = init.or_else(|| spec.containers.iter().find(|one| one.name == name));
    let own = container.map_or("", |one| text(&one.restart_policy));
    let policy = if own.is_empty() {
        text(&spec.restart_policy)
    } else {
        own
    };
    let ruled = container.is_some_and(|one| !list(&one.restart_policy_rules).is_empty());
    ruled || init.is_some_and(is_sidecar) || policy == "Always" || (policy == "OnFailure" && exit_code != 0)
}

type Statuses = Option<Vec<ContainerStatus>>;

fn revived(
    check: &mut Check,
    (new, old): (&Statuses, &Statuses),
    restarts: impl Fn(&str, i32) -> bool,
    path: &Path,
) {
    fn ended(status: &ContainerStatus) -> Option<i32> {
        Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
    }
    for (i, before) in list(old).iter().enumerate() {
        let Some(exit_code) = ended(before) else { continue };
        if restarts(&before.name, exit_code) {
            continue;
        }
        if list(new)
            .iter()
            .any(|after| after.name == before.name && ended(after).is_none())
        {
            check.forbidden(
                &path.index(i).child("state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}

fn claims(check: &mut Check, pod: &Pod, status: &PodStatus, path: &Path) {
    let known = pod
        .spec
        .as_ref()
        .map_or(&[][..], |spec| list(&spec.resource_claims));
    let mut seen = BTreeSet::new();
    for (i, claim) in list(&status.resource_claim_statuses).iter().enumerate() {
        let at = path.index(i).child("name");
        if !known.iter().any(|one| one.name == claim.name) {
            check.invalid(
                &at,
                &claim.name,
                "must match the name of an entry in `spec.resourceClaims`",
            );
        }
        if !seen.insert(claim.name.as_str()) {
            check.duplicate(&at, &claim.name);
        }
        if let Some(name) = &claim.resource_claim_name {
            check.faults(&at, name, format::dns1123_subdomain(name));
        }
    }
}

/// One address, or one of each family.
fn addresses(check: &mut Check, addresses: &[&str], path: &Path) {
    for (i, address) in addresses.iter().enumerate() {
        check.ip(&path.index(i), address);
        if addresses[..i].contains(address) {
            check.duplicate(&path.index(i), address);
        }
    }
    let families: BTreeSet<bool> = addresses
        .iter()
        .filter_map(|one| one.parse().ok())
        .map(|one: IpAddr| one.is_ipv4())
        .collect();
    if addresses.len() > 1 && (families.len() < 2 || addresses.len() > 2) {
        check.invalid(
            path,
            addresses,
            "may specify no more than one IP for each IP family",
        );
    }
}

fn users(check: &mut Check, statuses: &[ContainerStatus], path: &Path) {
    for (i, status) in statuses.iter().enumerate() {
        let Some(user) = status.user.as_ref().and_then(|user| user.linux.as_ref()) else {
            continue;
        };
        let at = path.index(i).child("linux");
        check.id(&at.child("uid"), user.uid);
        check.id(&at.child("gid"), user.gid);
        for (j, group) in list(&user.supplemental_groups).iter().enumerate() {
            check.id(&at.child("supplementalGroups").index(j), *group);
        }
    }
}
