//! The checks, each an `async fn` over a [`Fixture`](super::Fixture).

#![allow(
    clippy::missing_panics_doc,
    reason = "a check panics when it fails, that is its answer"
)]

mod compaction;
mod concurrency;
mod disruption;
mod guards;
mod limits;
mod lists;
mod revisions;
mod ttl;
mod watches;

pub use self::compaction::*;
pub use self::concurrency::*;
pub use self::disruption::*;
pub use self::guards::*;
pub use self::limits::*;
pub use self::lists::*;
pub use self::revisions::*;
pub use self::ttl::*;
pub use self::watches::*;
