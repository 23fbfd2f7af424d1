//! The syntax of texts in objects. Each check tells what is wrong in upstream's words.

use std::net::IpAddr;

pub(crate) use orch_core::names::{
    config_map_key, dns1123_label, dns1123_subdomain, env_var_name, label_value, port_name, qualified_name,
    wildcard_dns1123_subdomain,
};

pub(crate) const IMMUTABLE: &str = "field is immutable";
pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";
pub(crate) const NOT_POSITIVE: &str = "must be greater than zero";

/// What a port may carry.
pub(crate) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// An address, IPv4 or IPv6, without zone.
pub(crate) fn ip(value: &str) -> Vec<String> {
    match value.parse::<IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// A network in CIDR notation.
pub(crate) fn cidr(value: &str) -> Vec<String> {
    let fault = || vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    let Some((address, length)) = value.split_once('/') else {
        return fault();
    };
    let (Ok(address), Ok(length)) = (address.parse::<IpAddr>(), length.parse::<u8>()) else {
        return fault();
    };
    let max = if address.is_ipv4() { 32 } else { 128 };
    if length > max { fault() } else { Vec::new() }
}

/// Why an address cannot be that of an endpoint: nobody else could reach it, or it is the node's own affair.
pub(crate) fn special_ip(value: &str) -> Vec<String> {
    let Ok(address) = value.parse::<IpAddr>() else {
        return vec!["must be a valid IP address".to_owned()];
    };
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    let mut faults = Vec::new();
    if address.is_unspecified() {
        faults.push(format!("may not be unspecified ({value})"));
    }
    if address.is_loopback() {
        faults.push("may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned());
    }
    if link_local {
        faults.push("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned());
    }
    if link_local_multicast {
        faults.push("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned());
    }
    faults
}

/// The name of an HTTP header.
pub(crate) fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used \
               for validation is '[-A-Za-z0-9]+')";
    vec![why.to_owned()]
}

/// Names of kernel parameters, with dots or slashes between the parts.
pub(crate) fn is_sysctl(value: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    value.len() <= 253
        && value.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            let inner = bytes.iter().all(|b| edge(b) || matches!(b, b'-' | b'_'));
            inner && bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_need_an_address_and_a_length_that_fits_it() {
        for good in ["10.0.0.0/8", "10.1.2.3/32", "fd00::/64"] {
            assert!(cidr(good).is_empty(), "{good}");
        }
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129", "10.0.0.0/-1"] {
            assert_eq!(cidr(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn endpoints_are_not_where_only_the_node_itself_can_look() {
        for bad in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.5",
            "::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert_eq!(special_ip(bad).len(), 1, "{bad}");
        }
        assert!(special_ip("10.0.0.1").is_empty());
    }

    #[test]
    fn sysctl_names_have_whole_parts() {
        assert!(is_sysctl("net.ipv4.ip_forward") && is_sysctl("net/ipv4/conf.all"));
        assert!(!is_sysctl("net..ipv4") && !is_sysctl("_net") && !is_sysctl("Net"));
    }
}
