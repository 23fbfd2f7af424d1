//! Addresses and ports: ranges, and who has which of them.
//!
//! ```
//! use orch_core::ipam::{Cidr, IpAllocator};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let services: Cidr = "10.96.0.0/24".parse()?;
//! let mut allocator = IpAllocator::new(services);
//! allocator.reserve("10.96.0.1".parse()?)?;
//! assert_eq!(allocator.next()?.to_string(), "10.96.0.2");
//! # Ok(())
//! # }
//! ```

mod bitmap;
mod cidr;
mod ip;
mod port;

pub use cidr::{Cidr, CidrError};
pub use ip::{CidrAllocator, IpAllocator};
pub use port::PortAllocator;

/// Why an address or port cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// Nothing is left.
    #[error("range is full")]
    Full,
    /// Somebody has it.
    #[error("provided {what} is already allocated")]
    Allocated {
        /// `IP`, `port` or `range`.
        what: &'static str,
    },
    /// It does not belong to the range.
    #[error("the provided {what} ({asked}) is not in the valid range. The range of valid {what}s is {range}")]
    NotInRange {
        /// `IP`, `port` or `range`.
        what: &'static str,
        /// What was asked for.
        asked: String,
        /// What can be had.
        range: String,
    },
}

impl AllocError {
    /// Whether nothing is left.
    pub fn is_full(&self) -> bool {
        matches!(self, AllocError::Full)
    }

    /// Whether somebody has what was asked for.
    pub fn is_allocated(&self) -> bool {
        matches!(self, AllocError::Allocated { .. })
    }
}
