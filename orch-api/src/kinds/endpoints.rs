//! Endpoints.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::{Check, Path};
use super::format;
use super::table::{self, AGE, NAME, text_column};
use super::text::{default_text, drop_empty, list, text};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

/// How many endpoints a table shows before it only counts them.
const SHOWN: usize = 3;

/// The rules of Endpoints.
pub(super) struct AllEndpoints;

impl Kind for AllEndpoints {
    type Object = Endpoints;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("", "v1", "Endpoints", "endpoints")
            .short(["ep"])
            .stored_at("services/endpoints")
    }

    fn default(endpoints: &mut Endpoints) {
        for port in endpoints
            .subsets
            .iter_mut()
            .flatten()
            .flat_map(|subset| subset.ports.iter_mut().flatten())
        {
            default_text(&mut port.protocol, "TCP");
            drop_empty(&mut port.name);
        }
    }

    fn validate(endpoints: &Endpoints) -> ErrorList {
        Check::run(|check| {
            for (i, subset) in list(&endpoints.subsets).iter().enumerate() {
                self::subset(check, subset, &Path::new("subsets").index(i));
            }
        })
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            text_column("Endpoints", "Addresses and ports that are ready."),
            AGE,
        ];
        COLUMNS
    }

    fn cells(endpoints: &Endpoints, now: Timestamp) -> Vec<Value> {
        let shown = list(&endpoints.subsets)
            .iter()
            .flat_map(shown)
            .collect::<Vec<_>>();
        let meta = &endpoints.metadata;
        vec![
            table::name(meta),
            few(&shown, SHOWN, table::NONE).into(),
            table::age(meta, now),
        ]
    }

    fn create_on_update() -> bool {
        true
    }
}

fn subset(check: &mut Check, subset: &EndpointSubset, path: &Path) {
    let (ready, others, ports) = (
        list(&subset.addresses),
        list(&subset.not_ready_addresses),
        list(&subset.ports),
    );
    if ready.is_empty() && others.is_empty() {
        check.required(path, "must specify `addresses` or `notReadyAddresses`");
    }
    for (field, addresses) in [("addresses", ready), ("notReadyAddresses", others)] {
        for (i, address) in addresses.iter().enumerate() {
            self::address(check, address, &path.child(field).index(i));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        self::port(check, port, ports.len() > 1, &path.child("ports").index(i));
    }
}

fn address(check: &mut Check, address: &EndpointAddress, path: &Path) {
    let faults = format::ip(&address.ip);
    let faults = if faults.is_empty() {
        format::special_ip(&address.ip)
    } else {
        faults
    };
    check.faults(&path.child("ip"), &address.ip, faults);
    let name = text(&address.hostname);
    if !name.is_empty() {
        check.faults(&path.child("hostname"), name, format::dns1123_label(name));
    }
    if let Some(node) = &address.node_name {
        check.faults(&path.child("nodeName"), node, format::dns1123_subdomain(node));
    }
}

fn port(check: &mut Check, port: &EndpointPort, named: bool, path: &Path) {
    let name = text(&port.name);
    if !name.is_empty() {
        check.faults(&path.child("name"), name, format::dns1123_label(name));
    } else if named {
        check.required(&path.child("name"), "");
    }
    check.port(&path.child("port"), port.port);
    check.one_of(&path.child("protocol"), text(&port.protocol), &format::PROTOCOLS);
    if let Some(protocol) = &port.app_protocol {
        check.faults(
            &path.child("appProtocol"),
            protocol,
            format::qualified_name(protocol),
        );
    }
}

fn shown(subset: &EndpointSubset) -> Vec<String> {
    let addresses = list(&subset.addresses);
    if list(&subset.ports).is_empty() {
        return addresses.iter().map(|address| address.ip.clone()).collect();
    }
    let with_port = |port: &EndpointPort| {
        let port = port.port;
        addresses
            .iter()
            .map(move |address| match address.ip.contains(':') {
                true => format!("[{}]:{port}", address.ip),
                false => format!("{}:{port}", address.ip),
            })
    };
    list(&subset.ports).iter().flat_map(with_port).collect()
}

/// The first few of a list, and how many more there are.
pub(super) fn few(items: &[String], most: usize, none: &str) -> String {
    if items.is_empty() {
        return none.to_owned();
    }
    let first = items[..items.len().min(most)].join(",");
    if items.len() > most {
        format!("{first} + {} more...", items.len() - most)
    } else {
        first
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endpoints(subsets: Value) -> Endpoints {
        let mut endpoints: Endpoints = serde_json::from_value(json!({"subsets": subsets})).unwrap();
        AllEndpoints::default(&mut endpoints);
        endpoints
    }

    #[test]
    fn a_subset_has_addresses_that_others_can_reach() {
        for (subset, errors) in [
            (
                json!({}),
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
            ),
            (
                json!({"addresses": [{"ip": "127.0.0.1"}]}),
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range \
                 (127.0.0.0/8, ::1/128)",
            ),
            (
                json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}, {"port": 2, "name": "b"}]}),
                "subsets[0].ports[0].name: Required value",
            ),
        ] {
            assert_eq!(
                AllEndpoints::validate(&endpoints(json!([subset]))).to_string(),
                errors
            );
        }
    }

    #[test]
    fn the_table_shows_three() {
        let addresses: Vec<Value> = (1..=4).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
        let one = endpoints(json!([{"addresses": addresses, "ports": [{"port": 80}]}]));
        assert_eq!(
            AllEndpoints::cells(&one, Timestamp::UNIX_EPOCH)[1],
            "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more..."
        );
        assert_eq!(
            AllEndpoints::cells(&endpoints(json!([])), Timestamp::UNIX_EPOCH)[1],
            "<none>"
        );
    }
}
