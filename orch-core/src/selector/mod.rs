//! Label selectors, node selectors and field selectors.
//!
//! ```
//! use std::collections::BTreeMap;
//! use orch_core::selector::LabelSelector;
//!
//! # fn main() -> Result<(), orch_core::selector::SelectorError> {
//! let selector: LabelSelector = "app=web,tier in (front, back),!legacy".parse()?;
//! let labels = BTreeMap::from([("app".to_string(), "web".to_string()), ("tier".into(), "back".into())]);
//! assert!(selector.matches(&labels));
//! assert_eq!(selector.to_string(), "app=web,!legacy,tier in (back,front)");
//! # Ok(())
//! # }
//! ```

mod fields;
mod labels;
mod nodes;
mod parse;

pub use fields::{FieldRequirement, FieldSelector};
pub use labels::{LabelSelector, Operator, Requirement};
pub use nodes::{NodeSelector, NodeSelectorTerm};

/// Why a selector cannot be understood.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// The text of a label selector is not built like one.
    #[error("unable to parse requirement: {0}")]
    Labels(String),
    /// A key, operator or value is wrong.
    #[error("{0}")]
    Requirement(#[from] crate::field::FieldError),
    /// An operator is none of the known ones.
    #[error("{} is not a valid {kind} operator", crate::field::quote(.operator))]
    Operator {
        /// What stands there.
        operator: String,
        /// `label selector` or `node selector`.
        kind: &'static str,
    },
    /// The text of a field selector is not built like one.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Fields {
        /// The whole selector.
        selector: String,
        /// The part that is wrong.
        term: String,
    },
    /// A value of a field selector has a backslash that escapes nothing.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
}
