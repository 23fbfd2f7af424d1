//! Services.

mod addresses;
mod prepare;
mod validation;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::Check;
use super::selectors;
use super::table::{self, AGE, NAME, NONE, UNKNOWN, text_column};
use super::text::{default_text, drop_empty, drop_false, list, text};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind, NameRule};

/// How long a client sticks to one endpoint when nobody says.
const AFFINITY_SECONDS: i32 = 10_800;

/// The rules of services.
pub(super) struct Services;

impl Kind for Services {
    type Object = Service;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("", "v1", "Service", "services")
            .short(["svc"])
            .categories(["all"])
            .status()
            .stored_at("services/specs")
    }

    fn default(service: &mut Service) {
        let spec = service.spec.get_or_insert_default();
        default_text(&mut spec.type_, "ClusterIP");
        default_text(&mut spec.session_affinity, "None");
        affinity(spec);
        for port in spec.ports.iter_mut().flatten() {
            default_text(&mut port.protocol, "TCP");
            drop_empty(&mut port.name);
            let open = match &port.target_port {
                None | Some(IntOrString::Int(0)) => true,
                Some(IntOrString::String(name)) => name.is_empty(),
                Some(IntOrString::Int(_)) => false,
            };
            if open {
                port.target_port = Some(IntOrString::Int(port.port));
            }
            if port.node_port == Some(0) {
                port.node_port = None;
            }
        }
        drop_false(&mut spec.publish_not_ready_addresses);
        for field in [
            &mut spec.cluster_ip,
            &mut spec.external_name,
            &mut spec.external_traffic_policy,
        ] {
            drop_empty(field);
        }
        if is_external(spec) {
            spec.external_traffic_policy
                .get_or_insert_with(|| "Cluster".to_owned());
        }
        if text(&spec.type_) != "ExternalName" {
            spec.internal_traffic_policy
                .get_or_insert_with(|| "Cluster".to_owned());
        }
        if text(&spec.type_) == "LoadBalancer" {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
            ip_modes(&mut service.status);
        }
    }

    fn prepare_for_create(service: &mut Service) {
        service.status = Some(empty_status());
        prepare::create(service.spec.get_or_insert_default());
    }

    fn prepare_for_update(new: &mut Service, old: &Service) {
        new.status.clone_from(&old.status);
        if let (Some(new), Some(old)) = (&mut new.spec, &old.spec) {
            prepare::update(new, old);
        }
    }

    fn prepare_for_status_update(new: &mut Service, old: &Service) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(service: &Service) -> ErrorList {
        Check::run(|check| validation::service(check, service))
    }

    fn validate_update(new: &Service, old: &Service) -> ErrorList {
        Check::run(|check| {
            if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
                addresses::update(check, new, old);
                validation::update(check, new, old);
            }
            validation::service(check, new);
        })
    }

    fn validate_status_update(new: &Service, _old: &Service) -> ErrorList {
        Check::run(|check| validation::status(check, new))
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            text_column("Type", "How the service is reached."),
            text_column("Cluster-IP", "The virtual address inside the cluster."),
            text_column("External-IP", "Addresses outside the cluster."),
            text_column("Port(s)", "The ports, with node ports and protocols."),
            AGE,
            text_column("Selector", "Which pods stand behind the service.").wide(),
        ];
        COLUMNS
    }

    fn cells(service: &Service, now: Timestamp) -> Vec<Value> {
        let empty = ServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&empty);
        let internal = list(&spec.cluster_ips)
            .first()
            .map_or(text(&spec.cluster_ip), String::as_str);
        vec![
            table::name(&service.metadata),
            text(&spec.type_).into(),
            table::or_none(internal).into(),
            external(spec, service.status.as_ref()).into(),
            ports(spec).into(),
            table::age(&service.metadata, now),
            selectors::show_labels(&spec.selector).into(),
        ]
    }

    fn selectable_fields(service: &Service) -> Vec<(&'static str, String)> {
        let spec = service.spec.as_ref();
        vec![
            (
                "spec.clusterIP",
                spec.map_or("", |spec| text(&spec.cluster_ip)).to_owned(),
            ),
            ("spec.type", spec.map_or("", |spec| text(&spec.type_)).to_owned()),
        ]
    }

    fn name_rule() -> NameRule {
        NameRule::Dns1035Label
    }

    fn create_on_update() -> bool {
        true
    }
}

fn empty_status() -> ServiceStatus {
    ServiceStatus {
        load_balancer: Some(k8s_openapi::api::core::v1::LoadBalancerStatus::default()),
        conditions: None,
    }
}

fn affinity(spec: &mut ServiceSpec) {
    match text(&spec.session_affinity) {
        "None" => spec.session_affinity_config = None,
        "ClientIP" => {
            let client = spec
                .session_affinity_config
                .get_or_insert_default()
                .client_ip
                .get_or_insert_default();
            client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
        }
        _ => {}
    }
}

fn ip_modes(status: &mut Option<ServiceStatus>) {
    let balancer = status.as_mut().and_then(|status| status.load_balancer.as_mut());
    for ingress in balancer
        .into_iter()
        .flat_map(|balancer| balancer.ingress.iter_mut().flatten())
    {
        if ingress.ip.as_ref().is_some_and(|ip| !ip.is_empty()) {
            ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
        }
    }
}

/// Whether traffic from outside the cluster may reach it.
fn is_external(spec: &ServiceSpec) -> bool {
    let sort = text(&spec.type_);
    sort == "LoadBalancer"
        || sort == "NodePort"
        || (sort == "ClusterIP" && !list(&spec.external_ips).is_empty())
}

fn is_headless(spec: &ServiceSpec) -> bool {
    list(&spec.cluster_ips) == ["None"]
}

fn needs_health_check(spec: &ServiceSpec) -> bool {
    text(&spec.type_) == "LoadBalancer" && text(&spec.external_traffic_policy) == "Local"
}

fn external(spec: &ServiceSpec, status: Option<&ServiceStatus>) -> String {
    let own = list(&spec.external_ips);
    match text(&spec.type_) {
        "ClusterIP" | "NodePort" => table::or_none(&own.join(",")),
        "ExternalName" => text(&spec.external_name).to_owned(),
        "LoadBalancer" => {
            let balancer = status.and_then(|status| status.load_balancer.as_ref());
            let ingress = balancer
                .map_or(&[][..], |balancer| list(&balancer.ingress))
                .iter();
            let given = ingress.map(|one| {
                if text(&one.ip).is_empty() {
                    text(&one.hostname)
                } else {
                    text(&one.ip)
                }
            });
            let all: Vec<&str> = given
                .filter(|one| !one.is_empty())
                .chain(own.iter().map(String::as_str))
                .collect();
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        _ => UNKNOWN.to_owned(),
    }
}

fn ports(spec: &ServiceSpec) -> String {
    let one = |port: &k8s_openapi::api::core::v1::ServicePort| match port.node_port.filter(|port| *port > 0) {
        Some(node_port) => format!("{}:{node_port}/{}", port.port, text(&port.protocol)),
        None => format!("{}/{}", port.port, text(&port.protocol)),
    };
    let shown: Vec<String> = list(&spec.ports).iter().map(one).collect();
    if shown.is_empty() {
        NONE.to_owned()
    } else {
        shown.join(",")
    }
}

#[cfg(test)]
mod tests;
