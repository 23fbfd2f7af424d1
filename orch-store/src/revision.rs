use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// A point in a store's history: one counter for the whole store, raised by every write.
///
/// An empty store stands at [`Revision::FIRST`] and the first write takes the one after it, as in etcd, so
/// that zero never names a state and stays free for Kubernetes' "any version" (`resourceVersion=0`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// No state of any store: before everything.
    pub const ZERO: Self = Self(0);
    /// The revision of a store in which nothing was ever written.
    pub const FIRST: Self = Self(1);

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Revision {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<Revision> for u64 {
    fn from(revision: Revision) -> Self {
        revision.0
    }
}

impl FromStr for Revision {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
