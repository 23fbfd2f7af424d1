//! Cluster addresses and their families.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::is_headless;
use crate::kinds::check::{Check, Path};
use crate::kinds::text::{list, text};

/// Addresses, families and policy of one service.
pub(super) fn validate(check: &mut Check, spec: &ServiceSpec, path: &Path) {
    if text(&spec.type_) == "ExternalName" {
        return;
    }
    agreement(check, spec, &path.child("clusterIPs"));
    families(check, spec, path);
    let all = list(&spec.cluster_ips);
    let path = path.child("clusterIPs");
    if all.len() > 2 {
        check.invalid(&path, all, "may only hold up to 2 values");
    }
    if !well_formed(check, all, &path) {
        return;
    }
    let kinds: BTreeSet<bool> = all.iter().map(|address| is_v6(address)).collect();
    if all.len() > 1 && kinds.len() < 2 {
        check.invalid(&path, all, "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return;
    }
    for (i, (address, family)) in all.iter().zip(list(&spec.ip_families)).enumerate() {
        if (family == "IPv4" && is_v6(address)) || (family == "IPv6" && !is_v6(address)) {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            check.invalid(&path.index(i), address, why);
        }
    }
}

fn is_v6(address: &str) -> bool {
    address.contains(':')
}

fn agreement(check: &mut Check, spec: &ServiceSpec, path: &Path) {
    let (one, all) = (text(&spec.cluster_ip), list(&spec.cluster_ips));
    match (one, all.first()) {
        ("", Some(_)) => check.invalid(path, all, "must be empty when `clusterIP` is not specified"),
        (one, None) if !one.is_empty() => check.required(path, ""),
        (one, Some(first)) if first != one => check.invalid(path, all, "first value must match `clusterIP`"),
        _ => {}
    }
}

fn families(check: &mut Check, spec: &ServiceSpec, path: &Path) {
    const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    let at = path.child("ipFamilies");
    let families = list(&spec.ip_families);
    for (i, family) in families.iter().enumerate() {
        if !["IPv4", "IPv6"].contains(&family.as_str()) {
            check.not_supported(&at.index(i), family, &["IPv4", "IPv6"]);
        }
        if families[..i].contains(family) {
            check.duplicate(&at.index(i), family);
        }
    }
    check.optional_one_of(
        &path.child("ipFamilyPolicy"),
        spec.ip_family_policy.as_deref(),
        &POLICIES,
    );
}

fn well_formed(check: &mut Check, all: &[String], path: &Path) -> bool {
    let mut sound = true;
    for (i, address) in all.iter().enumerate() {
        if i == 0 && address == "None" {
            if all.len() > 1 {
                check.invalid(path, all, "'None' must be the first and only value");
                sound = false;
            }
        } else {
            let faults = crate::kinds::format::ip(address);
            sound &= faults.is_empty();
            check.faults(&path.index(i), address, faults);
        }
    }
    sound
}

/// The first address and the first family stay, unless the service becomes or ceases to be an external name.
pub(super) fn update(check: &mut Check, new: &ServiceSpec, old: &ServiceSpec) {
    let external = |spec: &ServiceSpec| text(&spec.type_) == "ExternalName";
    if external(new) || external(old) || (is_headless(new) && is_headless(old)) {
        return;
    }
    let path = Path::new("spec");
    let (before, after) = (list(&old.cluster_ips), list(&new.cluster_ips));
    kept(
        check,
        before,
        after,
        "primary clusterIP can not be unset",
        &path.child("clusterIPs"),
    );
    released(check, new, before, after, "clusterIP", &path);
    if is_headless(new) != is_headless(old) {
        return;
    }
    let (before, after) = (list(&old.ip_families), list(&new.ip_families));
    kept(
        check,
        before,
        after,
        "primary ipFamily can not be unset",
        &path.child("ipFamilies"),
    );
    released(check, new, before, after, "ipFamily", &path);
}

fn kept(check: &mut Check, before: &[String], after: &[String], unset: &str, path: &Path) {
    if before.is_empty() {
        return;
    }
    if after.is_empty() {
        check.invalid(&path.index(0), after, unset);
    }
    let whole = before.len() == after.len();
    for (i, (old, new)) in before.iter().zip(after).enumerate() {
        if old != new && (whole || i == 0) {
            check.invalid(&path.index(i), after, "may not change once set");
        }
    }
}

fn released(
    check: &mut Check,
    new: &ServiceSpec,
    before: &[String],
    after: &[String],
    what: &str,
    path: &Path,
) {
    if before.len() > 1 && after.len() == 1 && text(&new.ip_family_policy) != "SingleStack" {
        let why = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        check.invalid(&path.child("ipFamilyPolicy"), &new.ip_family_policy, why);
    }
}
