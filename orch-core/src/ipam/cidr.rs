//! Address ranges in CIDR notation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is no address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {text}")]
pub struct CidrError {
    text: String,
}

/// A range of addresses, IPv4 or IPv6: a network and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The range of `prefix` bits that `address` lies in; none if the prefix is longer than an address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        if prefix > bits(address) {
            return None;
        }
        let unmasked = Cidr {
            network: address,
            prefix,
        };
        let network = number(address) & !unmasked.host_mask();
        Some(Cidr {
            network: like(address, network),
            prefix,
        })
    }

    /// Its first address.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many leading bits its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.network.is_ipv4()
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && number(address) & !self.host_mask() == number(self.network)
    }

    /// Whether the two have addresses in common.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// How many addresses there are. All of IPv6 counts as one less than it has.
    pub fn size(&self) -> u128 {
        self.host_mask().saturating_add(1)
    }

    /// The address `offset` after the first; none beyond the end.
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        (offset <= self.host_mask()).then(|| like(self.network, number(self.network) + offset))
    }

    /// How far `address` is from the first; none if it is outside.
    pub fn offset_of(&self, address: IpAddr) -> Option<u128> {
        self.contains(address)
            .then(|| number(address) - number(self.network))
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        like(self.network, number(self.network) | self.host_mask())
    }

    /// Its `index`th part of `prefix` bits; none if there are not as many, or parts are no smaller than the whole.
    pub fn subnet(&self, prefix: u8, index: u128) -> Option<Cidr> {
        let more = prefix.checked_sub(self.prefix)?;
        let count = 1u128.checked_shl(u32::from(more)).unwrap_or(u128::MAX);
        if index >= count || prefix > bits(self.network) {
            return None;
        }
        let offset = index
            .checked_shl(u32::from(bits(self.network) - prefix))
            .unwrap_or(0);
        Cidr::new(self.nth(offset)?, prefix)
    }

    fn host_mask(&self) -> u128 {
        let host = bits(self.network) - self.prefix;
        u128::MAX.checked_shr(u32::from(128 - host)).unwrap_or(0)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// `number` as an address of the same family as `family`. Of IPv4, 32 bits count.
fn like(family: IpAddr, number: u128) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Bits of the host are dropped: `10.0.0.1/24` is `10.0.0.0/24`.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            Cidr::new(address.parse().ok()?, prefix.parse().ok()?)
        };
        parse().ok_or_else(|| CidrError {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_of_both_families_know_their_addresses() {
        let v4 = cidr("10.1.2.3/16");
        assert_eq!(v4.to_string(), "10.1.0.0/16");
        assert_eq!(v4.size(), 65536);
        assert_eq!(v4.nth(258), Some(ip("10.1.1.2")));
        assert_eq!(v4.nth(65536), None);
        assert_eq!(v4.offset_of(ip("10.1.1.2")), Some(258));
        assert_eq!(v4.last(), ip("10.1.255.255"));
        assert!(!v4.contains(ip("10.2.0.0")));
        assert!(!v4.contains(ip("::a01:203")));

        let v6 = cidr("fd00::/108");
        assert_eq!(v6.size(), 1 << 20);
        assert_eq!(v6.last(), ip("fd00::f:ffff"));
        assert_eq!(cidr("0.0.0.0/0").size(), 1 << 32);
        assert_eq!(cidr("::/0").last(), ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert_eq!(cidr("10.0.0.1/32").size(), 1);
    }

    #[test]
    fn ranges_divide() {
        let all = cidr("10.244.0.0/16");
        assert_eq!(all.subnet(24, 0), Some(cidr("10.244.0.0/24")));
        assert_eq!(all.subnet(24, 255), Some(cidr("10.244.255.0/24")));
        assert_eq!(all.subnet(24, 256), None);
        assert_eq!(all.subnet(8, 0), None);
        assert!(all.overlaps(&cidr("10.244.3.0/24")));
        assert!(!all.overlaps(&cidr("10.245.0.0/24")));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "::/129",
            "10.0.0/8",
            "a/8",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
