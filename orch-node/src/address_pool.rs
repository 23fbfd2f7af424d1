//! Which addresses of a node's pod CIDR are free.
//!
//! The pool remembers nothing by itself: its owner fills it from the sandboxes that it found, so that what is taken is
//! always re-derived from what exists.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::runtime::parse_cidr;

/// Addresses of one CIDR, handed out round robin so that a freed address rests before it is used again.
#[derive(Debug, Clone)]
pub(crate) struct AddressPool {
    base: u128,
    hosts: u128,
    v4: bool,
    prefix: u8,
    taken: BTreeSet<u128>,
    next: u128,
}

impl AddressPool {
    /// A pool over a CIDR. The network address, the first host (the gateway) and IPv4's broadcast are never given out.
    pub(crate) fn new(cidr: &str) -> Option<Self> {
        let (address, prefix) = parse_cidr(cidr)?;
        let (bits, value) = match address {
            IpAddr::V4(v4) => (32, u128::from(u32::from(v4))),
            IpAddr::V6(v6) => (128, u128::from(v6)),
        };
        let host_bits = u32::from(bits - prefix);
        let hosts = if host_bits >= 64 {
            u128::from(u64::MAX)
        } else {
            1u128 << host_bits
        };
        let base = value & !(hosts - 1);
        (hosts >= 4).then_some(Self {
            base,
            hosts,
            v4: bits == 32,
            prefix,
            taken: BTreeSet::new(),
            next: 2,
        })
    }

    /// The first host address, which the bridge has.
    pub(crate) fn gateway(&self) -> IpAddr {
        self.address(1)
    }

    /// The prefix length.
    pub(crate) fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Marks an address as taken; one outside the CIDR is left alone.
    pub(crate) fn take(&mut self, address: IpAddr) {
        if let Some(offset) = self.offset(address) {
            self.taken.insert(offset);
            self.next = offset + 1;
        }
    }

    /// A free address, or `None` when all are taken.
    pub(crate) fn allocate(&mut self) -> Option<IpAddr> {
        let last = if self.v4 { self.hosts - 2 } else { self.hosts - 1 };
        let free = (self.next..=last)
            .chain(2..self.next.min(last + 1))
            .find(|offset| !self.taken.contains(offset))?;
        self.taken.insert(free);
        self.next = free + 1;
        Some(self.address(free))
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, address: IpAddr) {
        if let Some(offset) = self.offset(address) {
            self.taken.remove(&offset);
        }
    }

    fn address(&self, offset: u128) -> IpAddr {
        let value = self.base + offset;
        if self.v4 {
            Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX)).into()
        } else {
            Ipv6Addr::from(value).into()
        }
    }

    fn offset(&self, address: IpAddr) -> Option<u128> {
        let value = match address {
            IpAddr::V4(v4) if self.v4 => u128::from(u32::from(v4)),
            IpAddr::V6(v6) if !self.v4 => u128::from(v6),
            _ => return None,
        };
        value.checked_sub(self.base).filter(|offset| *offset < self.hosts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_handed_out_round_robin_and_run_out() {
        let mut pool = AddressPool::new("10.1.2.0/29").unwrap();
        assert_eq!(pool.gateway().to_string(), "10.1.2.1");
        let all: Vec<String> = std::iter::from_fn(|| pool.allocate())
            .map(|ip| ip.to_string())
            .collect();
        assert_eq!(all, ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]);
        pool.release("10.1.2.3".parse().unwrap());
        pool.release("10.1.2.5".parse().unwrap());
        assert_eq!(pool.allocate().unwrap().to_string(), "10.1.2.3");
        assert_eq!(pool.allocate().unwrap().to_string(), "10.1.2.5");
        assert_eq!(pool.allocate(), None);
    }

    #[test]
    fn a_freed_address_rests_before_it_is_used_again() {
        let mut pool = AddressPool::new("10.1.2.0/24").unwrap();
        let first = pool.allocate().unwrap();
        pool.release(first);
        assert_ne!(pool.allocate().unwrap(), first);
    }

    #[test]
    fn ipv6_ranges_larger_than_memory_work_and_tiny_ranges_are_refused() {
        let mut pool = AddressPool::new("fd00:1::/64").unwrap();
        assert_eq!(pool.allocate().unwrap().to_string(), "fd00:1::2");
        assert!(AddressPool::new("10.0.0.0/31").is_none());
        assert!(AddressPool::new("10.0.0.0").is_none());
        assert!(AddressPool::new("10.0.0.0/33").is_none());
    }
}
