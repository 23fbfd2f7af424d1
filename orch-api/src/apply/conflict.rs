//! Fields which an applied configuration wants to change and others own.

use std::collections::BTreeMap;
use std::fmt;

use orch_core::status::{ApiError, cause};

use super::fields::FieldSet;
use super::managed::ManagerId;
use super::path::{Step, display};

/// A field that is owned by another manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner.
    pub manager: ManagerId,
    /// The field.
    pub path: Vec<Step>,
}

/// All conflicts of an apply, sorted by owner. Prints upstream's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

impl Conflicts {
    pub(super) fn of(sets: &BTreeMap<ManagerId, FieldSet>) -> Self {
        let all = sets.iter().flat_map(|(manager, set)| {
            set.paths().into_iter().map(|path| Conflict {
                manager: manager.clone(),
                path,
            })
        });
        Self(all.collect())
    }

    /// Those that aren't about some fields.
    pub(super) fn except(&self, allowed: &FieldSet) -> Self {
        Self(
            self.0
                .iter()
                .filter(|conflict| !allowed.contains(&conflict.path))
                .cloned()
                .collect(),
        )
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [one] = self.0.as_slice() {
            let (owner, path) = (one.manager.describe(), display(&one.path));
            return write!(f, "Apply failed with 1 conflict: conflict with {owner}: {path}");
        }
        let mut lines = Vec::new();
        let mut previous = None;
        for conflict in &self.0 {
            if previous != Some(&conflict.manager) {
                lines.push(format!("conflicts with {}:", conflict.manager.describe()));
                previous = Some(&conflict.manager);
            }
            lines.push(format!("- {}", display(&conflict.path)));
        }
        write!(
            f,
            "Apply failed with {} conflicts: {}",
            self.0.len(),
            lines.join("\n")
        )
    }
}

impl From<Conflicts> for ApiError {
    fn from(conflicts: Conflicts) -> Self {
        let causes = conflicts.0.iter().map(|conflict| {
            let message = format!("conflict with {}", conflict.manager.describe());
            cause("FieldManagerConflict", &display(&conflict.path), &message)
        });
        ApiError::apply_conflict(causes.collect(), conflicts.to_string())
    }
}
