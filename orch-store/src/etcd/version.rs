//! Which etcd a member is, where that makes a difference.

/// A server's version, as its status tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32, u32);

impl Version {
    /// One that does not tell, which only the newer ones do.
    pub(super) const NEWER: Self = Self(3, 6, 0);

    /// Reads `3.5.16`, also with something behind it. What is missing or no number counts as 0.
    pub(super) fn parse(text: &str) -> Self {
        let mut numbers = text.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self(next(), next(), next())
    }

    /// Whether the answer to a progress request comes after all events up to its revision. Before 3.4.25 and 3.5.8 it could
    /// overtake them (etcd-io/etcd issue 15220).
    pub(super) fn has_reliable_progress(self) -> bool {
        match self {
            Self(3, 4, patch) => patch >= 25,
            Self(3, 5, patch) => patch >= 8,
            other => other >= Self(3, 6, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_believed_from_the_fixed_versions_on() {
        for (text, expected) in [
            ("3.3.27", false),
            ("3.4.23", false),
            ("3.4.25", true),
            ("3.5.7", false),
            ("3.5.8", true),
            ("3.5.30", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
            ("unknown", false),
        ] {
            assert_eq!(Version::parse(text).has_reliable_progress(), expected, "{text}");
        }
    }
}
