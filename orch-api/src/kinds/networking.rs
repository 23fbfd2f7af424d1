//! Ingresses, network policies, service networks.

use k8s_openapi::api::networking::v1::{IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR};
use orch_core::field::ErrorList;

use super::check::{Check, Path};
use super::stored::{counted, status_apart, table};
use super::table::{self as cell, AGE, NAME, NONE, text_column};
use super::text::{list, text};
use super::{format, selectors};
use crate::resource::ResourceInfo;
use crate::strategy::Kind;

const GROUP: &str = "networking.k8s.io";

/// The rules of ingresses.
pub(super) struct Ingresses;

impl Kind for Ingresses {
    type Object = Ingress;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced(GROUP, "v1", "Ingress", "ingresses")
            .short(["ing"])
            .status()
            .stored_at("ingress")
    }

    status_apart!();

    fn validate(ingress: &Ingress) -> ErrorList {
        Check::run(|check| {
            let spec = ingress.spec.clone().unwrap_or_default();
            let path = Path::new("spec");
            if list(&spec.rules).is_empty() && spec.default_backend.is_none() {
                check.invalid(
                    &path,
                    &spec.rules,
                    "either `defaultBackend` or `rules` must be specified",
                );
            }
            for (i, rule) in list(&spec.rules).iter().enumerate() {
                let path = path.child("rules").index(i);
                let host = text(&rule.host);
                if !host.is_empty() {
                    let wild = host.contains('*');
                    let syntax = if wild {
                        format::wildcard_dns1123_subdomain
                    } else {
                        format::dns1123_subdomain
                    };
                    check.faults(&path.child("host"), host, syntax(host));
                }
                for (j, one) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                    let at = path.child("http").child("paths").index(j);
                    let sort = &one.path_type;
                    let known = ["Exact", "ImplementationSpecific", "Prefix"];
                    match sort.as_str() {
                        "" => check.required(&at.child("pathType"), "pathType must be specified"),
                        sort => check.optional_one_of(&at.child("pathType"), Some(sort), &known),
                    }
                    let value = text(&one.path);
                    if !value.starts_with('/') && (sort == "Exact" || sort == "Prefix") {
                        check.invalid(&at.child("path"), value, "must be an absolute path");
                    }
                }
            }
        })
    }

    table!(
        [
            NAME,
            text_column("Class", "Which controller serves the ingress."),
            text_column("Hosts", "The names that the ingress answers to."),
            text_column("Address", "Where the ingress is reached."),
            text_column("Ports", "The ports that are open."),
            AGE,
        ],
        |ingress, now| {
            let spec = ingress.spec.clone().unwrap_or_default();
            let hosts: Vec<&str> = list(&spec.rules)
                .iter()
                .map(|rule| text(&rule.host))
                .filter(|host| !host.is_empty())
                .collect();
            let balancer = ingress
                .status
                .as_ref()
                .and_then(|status| status.load_balancer.as_ref());
            let addresses: Vec<&str> = balancer
                .map_or(&[][..], |balancer| list(&balancer.ingress))
                .iter()
                .map(|one| {
                    if text(&one.ip).is_empty() {
                        text(&one.hostname)
                    } else {
                        text(&one.ip)
                    }
                })
                .collect();
            vec![
                cell::name(&ingress.metadata),
                spec.ingress_class_name.as_deref().unwrap_or(NONE).into(),
                if hosts.is_empty() {
                    "*".to_owned()
                } else {
                    hosts.join(",")
                }
                .into(),
                addresses.join(",").into(),
                if list(&spec.tls).is_empty() {
                    "80"
                } else {
                    "80, 443"
                }
                .into(),
                cell::age(&ingress.metadata, now),
            ]
        }
    );
}

/// The rules of ingress classes.
pub(super) struct IngressClasses;

impl Kind for IngressClasses {
    type Object = IngressClass;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(GROUP, "v1", "IngressClass", "ingressclasses")
    }

    counted!();

    fn validate(class: &IngressClass) -> ErrorList {
        Check::run(|check| {
            let controller = class.spec.as_ref().map_or("", |spec| text(&spec.controller));
            let path = Path::new("spec").child("controller");
            check.present(&path, controller);
            if controller.len() > 250 {
                check.too_long(&path, 250);
            }
        })
    }

    fn validate_update(new: &IngressClass, old: &IngressClass) -> ErrorList {
        let controller = |class: &IngressClass| class.spec.as_ref().and_then(|spec| spec.controller.clone());
        Check::run(|check| {
            check.immutable(
                &Path::new("spec").child("controller"),
                &controller(new),
                &controller(old),
            );
        })
    }

    table!(
        [
            NAME,
            text_column("Controller", "Who serves ingresses of the class."),
            text_column("Parameters", "The object that configures the class."),
            AGE,
        ],
        |class, now| {
            let spec = class.spec.clone().unwrap_or_default();
            let parameters = spec.parameters.as_ref().map_or_else(
                || NONE.to_owned(),
                |one| match text(&one.api_group) {
                    "" => format!("{}/{}", one.kind, one.name),
                    group => format!("{}.{group}/{}", one.kind, one.name),
                },
            );
            vec![
                cell::name(&class.metadata),
                text(&spec.controller).into(),
                parameters.into(),
                cell::age(&class.metadata, now),
            ]
        }
    );
}

/// The rules of network policies.
pub(super) struct NetworkPolicies;

impl Kind for NetworkPolicies {
    type Object = NetworkPolicy;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced(GROUP, "v1", "NetworkPolicy", "networkpolicies").short(["netpol"])
    }

    fn default(policy: &mut NetworkPolicy) {
        let spec = policy.spec.get_or_insert_default();
        if list(&spec.policy_types).is_empty() {
            let mut types = vec!["Ingress".to_owned()];
            if !list(&spec.egress).is_empty() {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
    }

    counted!();

    fn validate(policy: &NetworkPolicy) -> ErrorList {
        Check::run(|check| {
            let spec = policy.spec.clone().unwrap_or_default();
            let path = Path::new("spec");
            selectors::validate(check, spec.pod_selector.as_ref(), &path.child("podSelector"));
            for (i, sort) in list(&spec.policy_types).iter().enumerate() {
                check.optional_one_of(
                    &path.child("policyTypes").index(i),
                    Some(sort),
                    &["Egress", "Ingress"],
                );
            }
        })
    }

    table!(
        [
            NAME,
            text_column("Pod-Selector", "Which pods the policy is about."),
            AGE
        ],
        |policy, now| {
            let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
            vec![
                cell::name(&policy.metadata),
                selectors::show(selector).into(),
                cell::age(&policy.metadata, now),
            ]
        }
    );
}

/// The rules of IP addresses that are taken.
pub(super) struct IpAddresses;

impl Kind for IpAddresses {
    type Object = IPAddress;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(GROUP, "v1", "IPAddress", "ipaddresses").short(["ip"])
    }

    counted!();

    fn validate(address: &IPAddress) -> ErrorList {
        Check::run(|check| {
            check.ip(&Path::new("metadata").child("name"), text(&address.metadata.name));
            let path = Path::new("spec").child("parentRef");
            check.present(&path.child("resource"), &address.spec.parent_ref.resource);
            check.present(&path.child("name"), &address.spec.parent_ref.name);
        })
    }

    fn name_rule() -> crate::strategy::NameRule {
        // An IPv6 address has colons; that it is an address is checked beside.
        crate::strategy::NameRule::PathSegment
    }

    table!(
        [NAME, text_column("ParentRef", "The object that has the address.")],
        |address, _now| {
            let parent = &address.spec.parent_ref;
            let resource = match text(&parent.group) {
                "" => parent.resource.clone(),
                group => format!("{}.{group}", parent.resource),
            };
            let shown = match text(&parent.namespace) {
                "" => format!("{resource}/{}", parent.name),
                namespace => format!("{resource}/{namespace}/{}", parent.name),
            };
            vec![cell::name(&address.metadata), shown.into()]
        }
    );
}

/// The rules of service networks.
pub(super) struct ServiceCidrs;

impl Kind for ServiceCidrs {
    type Object = ServiceCIDR;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(GROUP, "v1", "ServiceCIDR", "servicecidrs").status()
    }

    status_apart!();

    fn validate(network: &ServiceCIDR) -> ErrorList {
        Check::run(|check| {
            let cidrs = network.spec.as_ref().map_or(&[][..], |spec| list(&spec.cidrs));
            let path = Path::new("spec").child("cidrs");
            if cidrs.is_empty() {
                check.required(&path, "at least one CIDR required");
            } else if cidrs.len() > 2 {
                check.invalid(&path, cidrs, "may only hold up to 2 values");
            }
            for (i, cidr) in cidrs.iter().enumerate() {
                check.cidr(&path.index(i), cidr);
            }
        })
    }

    table!(
        [NAME, text_column("CIDRs", "The networks."), AGE],
        |network, now| {
            let cidrs = network.spec.as_ref().map_or(&[][..], |spec| list(&spec.cidrs));
            vec![
                cell::name(&network.metadata),
                cidrs.join(",").into(),
                cell::age(&network.metadata, now),
            ]
        }
    );
}
