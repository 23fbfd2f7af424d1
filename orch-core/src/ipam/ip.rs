//! Giving out addresses of a range, and ranges of a range.

use std::net::IpAddr;

use super::bitmap::Bitmap;
use super::{AllocError, Cidr};

/// Gives out the addresses of a range, but for the first (the network) and, in IPv4, the last (broadcast).
#[derive(Clone, Debug)]
pub struct IpAllocator {
    cidr: Cidr,
    taken: Bitmap,
}

impl IpAllocator {
    /// All of `cidr` is free. Ranges of one or two addresses give out all they have.
    pub fn new(cidr: Cidr) -> Self {
        let size = match (cidr.size(), cidr.is_ipv4()) {
            (size @ (1 | 2), _) => size,
            (size, true) => size - 2,
            (size, false) => size - 1,
        };
        IpAllocator {
            cidr,
            taken: Bitmap::new(size),
        }
    }

    /// The range.
    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// How many addresses are left.
    pub fn free(&self) -> u128 {
        self.taken.free()
    }

    /// How many addresses are taken.
    pub fn used(&self) -> u128 {
        self.taken.taken()
    }

    /// Whether `address` is taken.
    pub fn has(&self, address: IpAddr) -> bool {
        self.index(address).is_ok_and(|index| self.taken.has(index))
    }

    /// Takes `address`.
    ///
    /// # Errors
    /// When it is taken, or outside of the range.
    pub fn reserve(&mut self, address: IpAddr) -> Result<(), AllocError> {
        let index = self.index(address)?;
        match self.taken.take(index) {
            true => Ok(()),
            false => Err(AllocError::Allocated { what: "IP" }),
        }
    }

    /// Gives `address` back; says whether it was taken.
    pub fn release(&mut self, address: IpAddr) -> bool {
        self.index(address).is_ok_and(|index| self.taken.release(index))
    }

    /// Takes the next free address, going round: what was released is used again late.
    ///
    /// # Errors
    /// When none is left.
    #[allow(
        clippy::should_implement_trait,
        reason = "it fails with a reason and is no sequence"
    )]
    pub fn next(&mut self) -> Result<IpAddr, AllocError> {
        let index = self.taken.take_next().ok_or(AllocError::Full)?;
        self.cidr.nth(index + self.skipped()).ok_or(AllocError::Full)
    }

    /// What is taken, in order.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.taken
            .iter()
            .filter_map(|index| self.cidr.nth(index + self.skipped()))
    }

    fn skipped(&self) -> u128 {
        u128::from(self.cidr.size() > 2)
    }

    fn index(&self, address: IpAddr) -> Result<u128, AllocError> {
        let size = self.taken.free() + self.taken.taken();
        let index = self
            .cidr
            .offset_of(address)
            .and_then(|offset| offset.checked_sub(self.skipped()));
        index
            .filter(|index| *index < size)
            .ok_or_else(|| AllocError::NotInRange {
                what: "IP",
                asked: address.to_string(),
                range: self.cidr.to_string(),
            })
    }
}

/// Gives out equal parts of a range, as nodes get their parts of the cluster's pod range.
#[derive(Clone, Debug)]
pub struct CidrAllocator {
    cidr: Cidr,
    prefix: u8,
    taken: Bitmap,
}

impl CidrAllocator {
    /// Parts of `prefix` bits of `cidr`; none if that is no part of it.
    pub fn new(cidr: Cidr, prefix: u8) -> Option<Self> {
        cidr.subnet(prefix, 0)?;
        let parts = 1u128
            .checked_shl(u32::from(prefix - cidr.prefix()))
            .unwrap_or(u128::MAX);
        Some(CidrAllocator {
            cidr,
            prefix,
            taken: Bitmap::new(parts),
        })
    }

    /// The whole range.
    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// Takes the next free part.
    ///
    /// # Errors
    /// When none is left.
    #[allow(
        clippy::should_implement_trait,
        reason = "it fails with a reason and is no sequence"
    )]
    pub fn next(&mut self) -> Result<Cidr, AllocError> {
        let index = self.taken.take_next().ok_or(AllocError::Full)?;
        self.cidr.subnet(self.prefix, index).ok_or(AllocError::Full)
    }

    /// Takes all parts that `part` has addresses of.
    ///
    /// # Errors
    /// When one of them is taken, or `part` is not within the range. Then nothing is taken.
    pub fn reserve(&mut self, part: Cidr) -> Result<(), AllocError> {
        let parts = self.parts(part).ok_or_else(|| AllocError::NotInRange {
            what: "range",
            asked: part.to_string(),
            range: self.cidr.to_string(),
        })?;
        if parts.clone().any(|index| self.taken.has(index)) {
            return Err(AllocError::Allocated { what: "range" });
        }
        for index in parts {
            self.taken.take(index);
        }
        Ok(())
    }

    /// Gives `part` back.
    pub fn release(&mut self, part: Cidr) {
        for index in self.parts(part).into_iter().flatten() {
            self.taken.release(index);
        }
    }

    fn parts(&self, part: Cidr) -> Option<std::ops::RangeInclusive<u128>> {
        let bits = if self.cidr.is_ipv4() { 32 } else { 128 };
        let shift = u32::from(bits - self.prefix);
        let index = |address| {
            self.cidr
                .offset_of(address)
                .map(|offset| offset.checked_shr(shift).unwrap_or(0))
        };
        Some(index(part.network())?..=index(part.last())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_usable_address_is_given_once() {
        let mut allocator = IpAllocator::new("10.0.0.0/29".parse().unwrap());
        let given: Vec<_> = std::iter::from_fn(|| allocator.next().ok())
            .map(|a| a.to_string())
            .collect();
        assert_eq!(
            given,
            [
                "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"
            ]
        );
        assert!(allocator.next().unwrap_err().is_full());
        assert!(allocator.release(ip("10.0.0.3")));
        assert!(!allocator.release(ip("10.0.0.3")));
        assert_eq!(allocator.next().unwrap(), ip("10.0.0.3"));
    }

    #[test]
    fn reserving_says_why_it_cannot() {
        let mut allocator = IpAllocator::new("10.0.0.0/24".parse().unwrap());
        allocator.reserve(ip("10.0.0.10")).unwrap();
        let error = allocator.reserve(ip("10.0.0.10")).unwrap_err();
        assert_eq!(error.to_string(), "provided IP is already allocated");
        for outside in ["10.0.0.0", "10.0.0.255", "10.0.1.1", "::1"] {
            let error = allocator.reserve(ip(outside)).unwrap_err();
            assert!(matches!(error, AllocError::NotInRange { .. }), "{outside}");
        }
        assert!(error.is_allocated());
        assert_eq!(allocator.iter().collect::<Vec<_>>(), [ip("10.0.0.10")]);
    }

    #[test]
    fn a_huge_range_costs_nothing() {
        let mut allocator = IpAllocator::new("fd00::/64".parse().unwrap());
        assert_eq!(allocator.next().unwrap(), ip("fd00::1"));
        allocator.reserve(ip("fd00::ffff:ffff:ffff:ffff")).unwrap();
        assert_eq!(allocator.used(), 2);
    }

    #[test]
    fn parts_of_a_range_are_given_out() {
        let mut allocator = CidrAllocator::new("10.244.0.0/22".parse().unwrap(), 24).unwrap();
        allocator.reserve("10.244.1.0/24".parse().unwrap()).unwrap();
        assert!(
            allocator
                .reserve("10.244.0.0/23".parse().unwrap())
                .unwrap_err()
                .is_allocated()
        );
        assert_eq!(allocator.next().unwrap().to_string(), "10.244.0.0/24");
        assert_eq!(allocator.next().unwrap().to_string(), "10.244.2.0/24");
        assert_eq!(allocator.next().unwrap().to_string(), "10.244.3.0/24");
        assert!(allocator.next().unwrap_err().is_full());
        allocator.release("10.244.2.0/24".parse().unwrap());
        assert_eq!(allocator.next().unwrap().to_string(), "10.244.2.0/24");
        assert!(CidrAllocator::new("10.244.0.0/24".parse().unwrap(), 16).is_none());
    }
}
