//! A checker of linearizability: whether there is an order of calls that explains all their answers.
//!
//! Each call takes effect at one instant between its start and its end, if there is an order in which every call is placed
//! so and each answer follows from the state that the calls before it have left. The search is that of Wing
//! and Gong with Lowe's memory of states that were tried. Keys are independent of each other, so it
//! looks at one key at a time.

use std::collections::HashSet;

use crate::Revision;

/// What was asked of a key, and what the answer was. A key's state is the revision of its last write, or `None`
/// when it does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A read that found this state.
    Read(Option<Revision>),
    /// A create that succeeded at this revision.
    Created(Revision),
    /// A create that was refused because of this revision.
    NotCreated(Revision),
    /// An update guarded by the first revision that succeeded at the second.
    Updated(Revision, Revision),
    /// A deletion guarded by the first revision that succeeded at the second.
    Deleted(Revision, Revision),
    /// An update or deletion guarded by the first revision that was refused because of the state.
    Refused(Revision, Option<Revision>),
}

impl Call {
    /// The state after the call, or `None` if the answer is wrong in this state.
    fn apply(self, state: Option<Revision>) -> Option<Option<Revision>> {
        match self {
            Self::Read(found) => (found == state).then_some(state),
            Self::Created(at) => state.is_none().then_some(Some(at)),
            Self::NotCreated(by) => (state == Some(by)).then_some(state),
            Self::Updated(expected, at) => (state == Some(expected)).then_some(Some(at)),
            Self::Deleted(expected, _) => (state == Some(expected)).then_some(None),
            Self::Refused(expected, found) => (found == state && state != Some(expected)).then_some(state),
        }
    }
}

/// A call with its start and end, on any clock that all callers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// When it was called.
    pub start: u64,
    /// When it had returned.
    pub end: u64,
    /// What it was.
    pub call: Call,
}

/// Whether the history of one key, which did not exist before, is linearizable.
///
/// # Panics
/// If there are more than 128 entries.
#[must_use]
pub fn is_linearizable(history: &[Entry]) -> bool {
    assert!(history.len() <= 128, "a history of at most 128 calls");
    let all = if history.len() == 128 {
        u128::MAX
    } else {
        (1 << history.len()) - 1
    };
    let mut tried = HashSet::new();
    let mut open = vec![(0_u128, None)];
    while let Some((done, state)) = open.pop() {
        if done == all {
            return true;
        }
        if !tried.insert((done, state)) {
            continue;
        }
        let rest = || {
            let indexed = history.iter().enumerate();
            indexed.filter(move |(index, _)| done & (1 << index) == 0)
        };
        // Nothing may be placed before a call that had returned when it started.
        let first_end = rest().map(|(_, entry)| entry.end).min().unwrap_or(0);
        for (index, entry) in rest().filter(|(_, entry)| entry.start <= first_end) {
            if let Some(next) = entry.call.apply(state) {
                open.push((done | 1 << index, next));
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn entry(start: u64, end: u64, call: Call) -> Entry {
        Entry { start, end, call }
    }

    const R2: Revision = Revision(2);
    const R3: Revision = Revision(3);
    const R4: Revision = Revision(4);

    #[test]
    fn calls_one_after_another_are_linearizable() {
        assert!(is_linearizable(&[
            entry(1, 2, Call::Created(R2)),
            entry(3, 4, Call::Updated(R2, R3)),
            entry(5, 6, Call::Read(Some(R3))),
            entry(7, 8, Call::Deleted(R3, R4)),
            entry(9, 10, Call::Read(None)),
        ]));
    }

    #[test]
    fn a_read_beside_a_write_may_see_either_state() {
        for seen in [None, Some(R2)] {
            assert!(is_linearizable(&[
                entry(1, 4, Call::Created(R2)),
                entry(2, 3, Call::Read(seen)),
            ]));
        }
    }

    #[test]
    fn a_stale_read_is_found() {
        assert!(!is_linearizable(&[
            entry(1, 2, Call::Created(R2)),
            entry(3, 4, Call::Updated(R2, R3)),
            entry(5, 6, Call::Read(Some(R2))),
        ]));
    }

    #[test]
    fn two_reads_cannot_go_back_in_time() {
        assert!(!is_linearizable(&[
            entry(1, 10, Call::Created(R2)),
            entry(2, 3, Call::Read(Some(R2))),
            entry(4, 5, Call::Read(None)),
        ]));
    }

    #[test]
    fn two_winners_of_one_guard_are_found() {
        assert!(!is_linearizable(&[
            entry(1, 2, Call::Created(R2)),
            entry(3, 6, Call::Updated(R2, R3)),
            entry(4, 5, Call::Updated(R2, R4)),
        ]));
    }

    #[test]
    fn a_refusal_needs_its_reason() {
        assert!(is_linearizable(&[
            entry(1, 2, Call::Created(R2)),
            entry(3, 6, Call::Updated(R2, R3)),
            entry(4, 5, Call::Refused(R2, Some(R3))),
        ]));
        assert!(!is_linearizable(&[
            entry(1, 2, Call::Created(R2)),
            entry(3, 4, Call::Refused(R2, Some(R3))),
            entry(5, 6, Call::Updated(R2, R3)),
        ]));
    }
}
