//! Amounts of resources: their names, their syntax, requests against limits.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use orch_core::quantity::Quantity;

use super::check::{Check, Path};
use super::format;
use super::pod_spec::is_sidecar;
use super::text::{entries, list, text};

/// Amounts by resource name.
pub(crate) type Amounts = Option<BTreeMap<String, Text>>;

const SYNTAX: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Resources that are counted, so that only whole numbers of them make sense.
const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

const MEASURED: [&str; 11] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "storage",
];

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && format::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether more of it can be promised than there is.
fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

fn parse(amount: &Text) -> Option<Quantity> {
    amount.0.parse().ok()
}

fn is_whole(amount: Quantity) -> bool {
    amount == Quantity::new(amount.value(), amount.format())
}

/// The zero that upstream writes where a divisor is left open.
pub(crate) fn zero() -> Text {
    Text("0".to_owned())
}

/// An amount in its canonical form, if it is one.
pub(crate) fn canonical(amount: &str) -> Option<String> {
    Some(amount.parse::<Quantity>().ok()?.to_string())
}

/// Rewrites an amount in its canonical form; a malformed one stays for validation to refuse.
pub(crate) fn canonicalise(amount: &mut Text) {
    if let Some(canonical) = canonical(&amount.0) {
        amount.0 = canonical;
    }
}

/// Rewrites all amounts of a map in their canonical form.
pub(crate) fn normalise_list(amounts: &mut Amounts) {
    amounts
        .iter_mut()
        .flatten()
        .for_each(|(_, amount)| canonicalise(amount));
}

/// Rewrites limits and requests in their canonical form.
pub(crate) fn normalise(requirements: &mut core::ResourceRequirements) {
    normalise_list(&mut requirements.limits);
    normalise_list(&mut requirements.requests);
}

/// A limit without a request is also the request. Only pods get this, templates do not.
pub(crate) fn requests_from_limits(requirements: &mut core::ResourceRequirements) {
    for (name, limit) in requirements.limits.clone().into_iter().flatten() {
        requirements
            .requests
            .get_or_insert_default()
            .entry(name)
            .or_insert(limit);
    }
}

pub(crate) fn is_negative(amount: &Text) -> bool {
    parse(amount).is_some_and(|amount| amount.is_negative())
}

pub(crate) fn is_positive(amount: &Text) -> bool {
    parse(amount).is_some_and(|amount| amount > Quantity::ZERO)
}

/// Whether one amount is below another.
pub(crate) fn is_less(one: &Text, other: &Text) -> bool {
    matches!((parse(one), parse(other)), (Some(one), Some(other)) if one < other)
}

/// The amount of a resource: well-formed, not negative, whole where things are counted.
pub(crate) fn quantity(check: &mut Check, name: &str, amount: &Text, path: &Path) {
    let Some(parsed) = parse(amount) else {
        check.invalid(path, &amount.0, SYNTAX);
        return;
    };
    if parsed.is_negative() {
        check.invalid(path, &amount.0, format::NEGATIVE);
    }
    if (COUNTED.contains(&name) || is_extended(name)) && !is_whole(parsed) {
        check.invalid(path, &amount.0, "must be an integer");
    }
}

/// The name of any resource.
pub(crate) fn name(check: &mut Check, name: &str, path: &Path) {
    let faults = format::qualified_name(name);
    let standard = COUNTED.contains(&name) || MEASURED.contains(&name) || is_huge_page(name);
    let standard = standard || name.starts_with("requests.hugepages-");
    if faults.is_empty() && !name.contains('/') && !standard {
        check.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    check.faults(path, name, faults);
}

/// The name of a resource that a container can ask for.
pub(crate) fn container_name(check: &mut Check, name: &str, path: &Path) {
    self::name(check, name, path);
    if !name.contains('/') {
        if !["cpu", "memory", "ephemeral-storage"].contains(&name) && !is_huge_page(name) {
            check.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        check.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// What a container asks for and may not exceed.
pub(crate) fn container(
    check: &mut Check,
    requirements: &core::ResourceRequirements,
    claims: &BTreeSet<&str>,
    path: &Path,
) {
    self::requirements(check, requirements, container_name, path);
    self::claims(check, list(&requirements.claims), claims, &path.child("claims"));
}

/// What a pod as a whole asks for, which must cover its containers.
pub(crate) fn pod(
    check: &mut Check,
    requirements: &core::ResourceRequirements,
    spec: &core::PodSpec,
    path: &Path,
) {
    if requirements.claims.is_some() {
        check.forbidden(
            &path.child("claims"),
            "claims cannot be set for Resources at pod-level",
        );
    }
    self::requirements(check, requirements, pod_name, path);
    for (name, needed) in container_requests(spec) {
        let given = requirements
            .requests
            .as_ref()
            .and_then(|requests| requests.get(&name));
        let given = given.and_then(parse).unwrap_or(Quantity::ZERO);
        if needed > given {
            let at = path.child("requests").key(&name);
            let why = format!("must be greater than or equal to aggregate container requests of {needed}");
            check.invalid(&at, given.to_string(), why);
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let Some(own) = &container.resources else { continue };
        for (name, limit) in entries(&own.limits) {
            let of_pod = requirements.limits.as_ref().and_then(|limits| limits.get(name));
            if let (Some(limit), Some(of_pod)) = (parse(limit), of_pod.and_then(parse))
                && limit > of_pod
            {
                let at = path.child("containers").index(i).key(name).child("limits");
                check.invalid(
                    &at,
                    limit.to_string(),
                    format!("must be less than or equal to pod limits of {of_pod}"),
                );
            }
        }
    }
}

fn pod_name(check: &mut Check, name: &str, path: &Path) {
    if !["cpu", "memory"].contains(&name) && !is_huge_page(name) {
        check.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// What the containers ask for together: those that run at the same time are added up.
fn container_requests(spec: &core::PodSpec) -> BTreeMap<String, Quantity> {
    let mut running: BTreeMap<String, Quantity> = BTreeMap::new();
    let mut most: BTreeMap<String, Quantity> = BTreeMap::new();
    let requests = |container: &core::Container| -> Vec<(String, Quantity)> {
        let requests = container.resources.as_ref().map(|one| &one.requests);
        let requests = requests.into_iter().flat_map(entries);
        requests
            .filter_map(|(name, amount)| Some((name.clone(), parse(amount)?)))
            .collect()
    };
    for container in list(&spec.init_containers) {
        for (name, amount) in requests(container) {
            let sum = running.get(&name).copied().unwrap_or(Quantity::ZERO) + amount;
            if is_sidecar(container) {
                running.insert(name.clone(), sum);
            }
            let most = most.entry(name).or_insert(Quantity::ZERO);
            *most = sum.max(*most);
        }
    }
    for (name, amount) in spec.containers.iter().flat_map(requests) {
        let sum = running.get(&name).copied().unwrap_or(Quantity::ZERO) + amount;
        running.insert(name, sum);
    }
    for (name, amount) in running {
        let most = most.entry(name).or_insert(Quantity::ZERO);
        *most = amount.max(*most);
    }
    most
}

fn requirements(
    check: &mut Check,
    requirements: &core::ResourceRequirements,
    name_rule: fn(&mut Check, &str, &Path),
    path: &Path,
) {
    let (limits_at, requests_at) = (path.child("limits"), path.child("requests"));
    for (name, limit) in entries(&requirements.limits) {
        amount(check, name, limit, name_rule, &limits_at.key(name));
    }
    for (name, request) in entries(&requirements.requests) {
        amount(check, name, request, name_rule, &requests_at.key(name));
        match requirements.limits.as_ref().and_then(|limits| limits.get(name)) {
            Some(limit) => within(check, name, request, limit, &requests_at),
            None if !may_overcommit(name) => {
                check.required(&limits_at, "Limit must be set for non overcommitable resources");
            }
            None => {}
        }
    }
    let names = || {
        entries(&requirements.limits)
            .chain(entries(&requirements.requests))
            .map(|(name, _)| name.as_str())
    };
    if names().any(is_huge_page) && !names().any(|name| name == "cpu" || name == "memory") {
        check.forbidden(path, "HugePages require cpu or memory");
    }
}

fn amount(check: &mut Check, name: &str, amount: &Text, name_rule: fn(&mut Check, &str, &Path), path: &Path) {
    name_rule(check, name, path);
    quantity(check, name, amount, path);
    if let Some(page) = name.strip_prefix("hugepages-")
        && let (Ok(page), Some(parsed)) = (page.parse::<Quantity>(), parse(amount))
        && !page.is_zero()
        && (!is_whole(parsed) || parsed.value() % page.value() != 0)
    {
        check.invalid(
            path,
            &amount.0,
            format!("{} is not positive integer multiple of {name}", amount.0),
        );
    }
}

fn within(check: &mut Check, name: &str, request: &Text, limit: &Text, path: &Path) {
    let (Some(wanted), Some(most)) = (parse(request), parse(limit)) else {
        return;
    };
    if wanted != most && !may_overcommit(name) {
        check.invalid(
            path,
            &request.0,
            format!("must be equal to {name} limit of {}", limit.0),
        );
    } else if wanted > most {
        check.invalid(
            path,
            &request.0,
            format!("must be less than or equal to {name} limit of {}", limit.0),
        );
    }
}

fn claims(check: &mut Check, claims: &[core::ResourceClaim], known: &BTreeSet<&str>, path: &Path) {
    for (i, claim) in claims.iter().enumerate() {
        let at = path.index(i);
        let request = text(&claim.request);
        if claim.name.is_empty() {
            check.required(&at, "");
            continue;
        }
        let overlaps = |other: &core::ResourceClaim| {
            let theirs = text(&other.request);
            other.name == claim.name && (request.is_empty() || theirs.is_empty() || theirs == request)
        };
        if claims[..i].iter().any(overlaps) {
            check.duplicate(&at, &claim.name);
        }
        if !request.is_empty() {
            check.faults(&at.child("request"), request, format::dns1123_label(request));
        }
        if !known.contains(claim.name.as_str()) {
            check.not_found(&at, &claim.name);
        }
    }
}

/// How well a pod is protected when its node runs out of something.
pub(crate) fn quality_of_service(spec: &core::PodSpec) -> &'static str {
    let own = spec.resources.iter();
    let containers = spec.containers.iter().chain(list(&spec.init_containers));
    let all: Vec<&core::ResourceRequirements> = match own.len() {
        0 => containers
            .filter_map(|container| container.resources.as_ref())
            .collect(),
        _ => own.collect(),
    };
    let count = if spec.resources.is_some() {
        1
    } else {
        spec.containers.len() + list(&spec.init_containers).len()
    };
    let counted = |amounts: &Amounts| -> BTreeMap<String, Quantity> {
        let compute =
            entries(amounts).filter(|(name, _)| name.as_str() == "cpu" || name.as_str() == "memory");
        let parsed = compute.filter_map(|(name, amount)| Some((name.clone(), parse(amount)?)));
        parsed.filter(|(_, amount)| *amount > Quantity::ZERO).collect()
    };
    let pairs: Vec<_> = all
        .iter()
        .map(|one| (counted(&one.requests), counted(&one.limits)))
        .collect();
    if pairs
        .iter()
        .all(|(requests, limits)| requests.is_empty() && limits.is_empty())
    {
        return "BestEffort";
    }
    let guaranteed = pairs.len() == count
        && pairs
            .iter()
            .all(|(requests, limits)| limits.len() == 2 && requests == limits);
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(json: serde_json::Value) -> String {
        let requirements: core::ResourceRequirements = serde_json::from_value(json).unwrap();
        Check::run(|check| container(check, &requirements, &BTreeSet::new(), &Path::new("r"))).to_string()
    }

    #[test]
    fn a_request_fits_its_limit() {
        assert_eq!(
            errors(json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}})),
            "[]"
        );
        assert_eq!(
            errors(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})),
            "r.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"
        );
    }

    #[test]
    fn devices_are_whole_and_never_overcommitted() {
        assert_eq!(
            errors(json!({"requests": {"example.com/gpu": "1"}})),
            "r.limits: Required value: Limit must be set for non overcommitable resources"
        );
        assert_eq!(
            errors(json!({"limits": {"example.com/gpu": "1500m"}})),
            "r.limits[example.com/gpu]: Invalid value: \"1500m\": must be an integer"
        );
    }

    #[test]
    fn an_unknown_resource_needs_a_domain() {
        assert_eq!(
            errors(json!({"limits": {"gpu": "1"}})),
            "[r.limits[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified, r.limits[gpu]: \
             Invalid value: \"gpu\": must be a standard resource for containers]"
        );
    }

    #[test]
    fn amounts_are_well_formed_and_not_negative() {
        assert_eq!(
            errors(json!({"limits": {"cpu": "-1"}})),
            "r.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"
        );
        assert_eq!(
            errors(json!({"limits": {"cpu": "abc"}})),
            format!("r.limits[cpu]: Invalid value: \"abc\": {SYNTAX}")
        );
    }

    #[test]
    fn amounts_are_kept_in_canonical_form() {
        let mut amounts = Some(BTreeMap::from([("cpu".to_owned(), Text("1000m".to_owned()))]));
        normalise_list(&mut amounts);
        assert_eq!(amounts.unwrap()["cpu"].0, "1");
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        for (resources, class) in [
            (json!([{}]), "BestEffort"),
            (json!([{"limits": {"cpu": "0"}}]), "BestEffort"),
            (json!([{"requests": {"cpu": "1"}}]), "Burstable"),
            (
                json!([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}]),
                "Guaranteed",
            ),
            (
                json!([{"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}]),
                "Burstable",
            ),
            (
                json!([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}, {}]),
                "Burstable",
            ),
        ] {
            let containers: Vec<core::Container> = resources
                .as_array()
                .unwrap()
                .iter()
                .map(|one| core::Container {
                    resources: Some(serde_json::from_value(one.clone()).unwrap()),
                    ..core::Container::default()
                })
                .collect();
            let spec = core::PodSpec {
                containers,
                ..core::PodSpec::default()
            };
            assert_eq!(quality_of_service(&spec), class, "{resources}");
        }
    }
}
