//! EndpointSlices.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::{Check, Path};
use super::endpoints::few;
use super::format;
use super::semantic::{bump_generation, same};
use super::table::{self, AGE, NAME, UNSET, text_column};
use super::text::{default_text, entries, list, text};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;
/// How many of a thing a table shows before it only counts them.
const SHOWN: usize = 3;

/// The rules of EndpointSlices.
pub(super) struct EndpointSlices;

impl Kind for EndpointSlices {
    type Object = EndpointSlice;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
    }

    fn default(slice: &mut EndpointSlice) {
        for port in slice.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            default_text(&mut port.protocol, "TCP");
        }
    }

    fn prepare_for_create(slice: &mut EndpointSlice) {
        slice.metadata.generation = Some(1);
    }

    fn prepare_for_update(new: &mut EndpointSlice, old: &EndpointSlice) {
        let kept = same(&new.endpoints, &old.endpoints)
            && same(&new.ports, &old.ports)
            && new.address_type == old.address_type
            && same(&new.metadata.labels, &old.metadata.labels);
        bump_generation(&mut new.metadata, &old.metadata, !kept);
    }

    fn validate(slice: &EndpointSlice) -> ErrorList {
        Check::run(|check| {
            check.one_of(
                &Path::new("addressType"),
                &slice.address_type,
                &["FQDN", "IPv4", "IPv6"],
            );
            endpoints(check, slice, &Path::new("endpoints"));
            ports(check, list(&slice.ports), &Path::new("ports"));
        })
    }

    fn validate_update(new: &EndpointSlice, old: &EndpointSlice) -> ErrorList {
        let mut errors = Self::validate(new);
        errors.extend(Check::run(|check| {
            check.immutable(&Path::new("addressType"), &new.address_type, &old.address_type);
        }));
        errors
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            text_column("AddressType", "The family of the addresses."),
            text_column("Ports", "The ports of all endpoints."),
            text_column("Endpoints", "The addresses of the endpoints."),
            AGE,
        ];
        COLUMNS
    }

    fn cells(slice: &EndpointSlice, now: Timestamp) -> Vec<Value> {
        let port = |port: &EndpointPort| match (port.port, text(&port.name)) {
            (Some(number), _) => number.to_string(),
            (None, "") => "*".to_owned(),
            (None, name) => name.to_owned(),
        };
        let ports: Vec<String> = list(&slice.ports).iter().map(port).collect();
        let all = list(&slice.endpoints)
            .iter()
            .flat_map(|endpoint| endpoint.addresses.clone());
        let addresses: Vec<String> = all.collect();
        vec![
            table::name(&slice.metadata),
            slice.address_type.clone().into(),
            few(&ports, SHOWN, UNSET).into(),
            few(&addresses, SHOWN, UNSET).into(),
            table::age(&slice.metadata, now),
        ]
    }
}

fn endpoints(check: &mut Check, slice: &EndpointSlice, path: &Path) {
    let all = list(&slice.endpoints);
    if all.len() > MAX_ENDPOINTS {
        check.too_many(path, all.len(), MAX_ENDPOINTS);
        return;
    }
    for (i, endpoint) in all.iter().enumerate() {
        self::endpoint(check, endpoint, &slice.address_type, &path.index(i));
    }
}

fn endpoint(check: &mut Check, endpoint: &Endpoint, sort: &str, path: &Path) {
    let at = path.child("addresses");
    if endpoint.addresses.is_empty() {
        check.required(&at, "must contain at least 1 address");
    } else if endpoint.addresses.len() > MAX_ADDRESSES {
        check.too_many(&at, endpoint.addresses.len(), MAX_ADDRESSES);
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        check.faults(&at.index(i), address, address_faults(sort, address));
    }
    if let Some(node) = &endpoint.node_name {
        check.faults(&path.child("nodeName"), node, format::dns1123_subdomain(node));
    }
    for (key, value) in entries(&endpoint.deprecated_topology) {
        check.faults(
            &path.child("deprecatedTopology"),
            key,
            format::qualified_name(key),
        );
        check.faults(
            &path.child("deprecatedTopology"),
            value,
            format::label_value(value),
        );
    }
    if let Some(name) = &endpoint.hostname {
        check.faults(&path.child("hostname"), name, format::dns1123_label(name));
    }
    let Some(hints) = &endpoint.hints else { return };
    let zones: Vec<&str> = list(&hints.for_zones)
        .iter()
        .map(|zone| zone.name.as_str())
        .collect();
    let nodes: Vec<&str> = list(&hints.for_nodes)
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    let path = path.child("hints");
    self::hints(check, &zones, format::label_value, &path.child("forZones"));
    self::hints(check, &nodes, format::dns1123_subdomain, &path.child("forNodes"));
}

fn address_faults(sort: &str, address: &str) -> Vec<String> {
    match sort {
        "IPv4" if address.parse::<Ipv4Addr>().is_err() => vec!["must be a valid IPv4 address".to_owned()],
        "IPv6" if address.parse::<Ipv6Addr>().is_err() => vec!["must be a valid IPv6 address".to_owned()],
        "IPv4" | "IPv6" => format::special_ip(address),
        "FQDN" => {
            let name = address.strip_suffix('.').unwrap_or(address);
            let faults = format::dns1123_subdomain(name);
            if faults.is_empty() && !name.contains('.') {
                return vec!["should be a domain with at least two segments separated by dots".to_owned()];
            }
            faults
        }
        _ => Vec::new(),
    }
}

fn hints(check: &mut Check, names: &[&str], syntax: fn(&str) -> Vec<String>, path: &Path) {
    if names.len() > MAX_HINTS {
        check.too_many(path, names.len(), MAX_HINTS);
        return;
    }
    for (i, name) in names.iter().enumerate() {
        let at = path.index(i).child("name");
        if names[..i].contains(name) {
            check.duplicate(&at, name);
        }
        check.faults(&at, name, syntax(name));
    }
}

fn ports(check: &mut Check, ports: &[EndpointPort], path: &Path) {
    if ports.len() > MAX_PORTS {
        check.too_many(path, ports.len(), MAX_PORTS);
        return;
    }
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            check.faults(&at.child("name"), name, format::dns1123_label(name));
        }
        if !names.insert(name) {
            check.duplicate(&at.child("name"), name);
        }
        check.one_of(&at.child("protocol"), text(&port.protocol), &format::PROTOCOLS);
        if let Some(protocol) = &port.app_protocol {
            check.faults(
                &at.child("appProtocol"),
                protocol,
                format::qualified_name(protocol),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(json: Value) -> EndpointSlice {
        let mut slice = serde_json::from_value(json).unwrap();
        EndpointSlices::default(&mut slice);
        slice
    }

    #[test]
    fn addresses_are_of_the_slices_family() {
        for (sort, address, errors) in [
            ("IPv4", "10.0.0.1", "[]"),
            (
                "IPv4",
                "fd00::1",
                "endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address",
            ),
            ("IPv6", "fd00::1", "[]"),
            ("FQDN", "a.b", "[]"),
        ] {
            let one = slice(json!({"addressType": sort, "endpoints": [{"addresses": [address]}]}));
            assert_eq!(EndpointSlices::validate(&one).to_string(), errors);
        }
    }

    #[test]
    fn the_family_is_needed_and_stays() {
        let none = slice(json!({}));
        assert_eq!(
            EndpointSlices::validate(&none).to_string(),
            "addressType: Required value"
        );
        let (old, new) = (
            slice(json!({"addressType": "IPv4"})),
            slice(json!({"addressType": "IPv6"})),
        );
        assert_eq!(
            EndpointSlices::validate_update(&new, &old).to_string(),
            "addressType: Invalid value: \"IPv6\": field is immutable"
        );
    }

    #[test]
    fn the_table_shows_ports_and_addresses() {
        let one = slice(json!({"addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]}));
        let cells = EndpointSlices::cells(&one, Timestamp::UNIX_EPOCH);
        assert_eq!(
            Value::from(cells),
            json!(["", "IPv4", "80", "10.0.0.1,10.0.0.2", "<unknown>"])
        );
        let cells = EndpointSlices::cells(&slice(json!({"addressType": "IPv4"})), Timestamp::UNIX_EPOCH);
        assert_eq!((&cells[2], &cells[3]), (&json!("<unset>"), &json!("<unset>")));
    }
}
