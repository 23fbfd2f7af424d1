//! Address ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::model::Family;

/// A range of addresses: a network address and its prefix length.
///
/// Host bits are cleared when a value is made, so that equal ranges compare equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no CIDR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR {0:?}: must be like 10.9.8.0/24 or fd00::/64")]
pub struct ParseCidrError(String);

impl Cidr {
    /// The range that holds `address` and has `prefix` bits, or `None` if the prefix is too long.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(ip) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
            }
            IpAddr::V6(ip) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
            }
            _ => return None,
        };
        Some(Self { address, prefix })
    }

    /// Whether the range holds `address`; never true across families.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address, self.prefix) == Some(*self)
    }

    /// The address family of the range.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseCidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address = address.parse().map_err(|_| bad())?;
        let prefix = prefix.parse().map_err(|_| bad())?;
        Self::new(address, prefix).ok_or_else(bad)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_cleared() {
        let cidr: Cidr = "10.9.8.7/24".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.9.8.0/24");
        assert_eq!("0.0.0.0/0".parse::<Cidr>().unwrap().to_string(), "0.0.0.0/0");
    }

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        let cidr: Cidr = "10.9.8.0/24".parse().unwrap();
        assert!(cidr.contains("10.9.8.255".parse().unwrap()));
        assert!(!cidr.contains("10.9.9.0".parse().unwrap()));
        let six: Cidr = "fd00::/64".parse().unwrap();
        assert!(six.contains("fd00::1".parse().unwrap()));
        assert!(!six.contains("10.9.8.1".parse().unwrap()));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "x/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
