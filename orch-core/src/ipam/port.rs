//! Giving out ports.

use std::ops::RangeInclusive;

use super::AllocError;
use super::bitmap::Bitmap;

/// Gives out the ports of a range, as Services of type NodePort get theirs.
#[derive(Clone, Debug)]
pub struct PortAllocator {
    first: u16,
    last: u16,
    taken: Bitmap,
}

impl Default for PortAllocator {
    /// 30000 to 32767, upstream's range of node ports.
    fn default() -> Self {
        Self::new(30000..=32767)
    }
}

impl PortAllocator {
    /// All of `range` is free.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        let (first, last) = range.into_inner();
        PortAllocator {
            first,
            last,
            taken: Bitmap::new((u128::from(last) + 1).saturating_sub(u128::from(first))),
        }
    }

    /// The range.
    pub fn range(&self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// How many ports are left.
    pub fn free(&self) -> u128 {
        self.taken.free()
    }

    /// Whether `port` is taken.
    pub fn has(&self, port: u16) -> bool {
        self.index(port).is_ok_and(|index| self.taken.has(index))
    }

    /// Takes `port`.
    ///
    /// # Errors
    /// When it is taken, or outside of the range.
    pub fn reserve(&mut self, port: u16) -> Result<(), AllocError> {
        let index = self.index(port)?;
        match self.taken.take(index) {
            true => Ok(()),
            false => Err(AllocError::Allocated { what: "port" }),
        }
    }

    /// Gives `port` back; says whether it was taken.
    pub fn release(&mut self, port: u16) -> bool {
        self.index(port).is_ok_and(|index| self.taken.release(index))
    }

    /// Takes the next free port, going round.
    ///
    /// # Errors
    /// When none is left.
    #[allow(
        clippy::should_implement_trait,
        reason = "it fails with a reason and is no sequence"
    )]
    pub fn next(&mut self) -> Result<u16, AllocError> {
        let index = self.taken.take_next().ok_or(AllocError::Full)?;
        // The bitmap is no larger than the range of ports.
        Ok(self.first + index as u16)
    }

    fn index(&self, port: u16) -> Result<u128, AllocError> {
        if self.range().contains(&port) {
            return Ok(u128::from(port - self.first));
        }
        Err(AllocError::NotInRange {
            what: "port",
            asked: port.to_string(),
            range: format!("{}-{}", self.first, self.last),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_taken_and_released() {
        let mut ports = PortAllocator::new(30000..=30002);
        ports.reserve(30001).unwrap();
        assert!(ports.reserve(30001).unwrap_err().is_allocated());
        assert_eq!(ports.next().unwrap(), 30000);
        assert_eq!(ports.next().unwrap(), 30002);
        assert!(ports.next().unwrap_err().is_full());
        assert!(ports.release(30001));
        assert_eq!(ports.next().unwrap(), 30001);
        let error = ports.reserve(80).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the provided port (80) is not in the valid range. The range of valid ports is 30000-30002"
        );
    }
}
