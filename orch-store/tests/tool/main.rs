//! The tool `orch-store`, run as its users run it.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod backup;
mod compact;
mod copy;
mod load;
mod look;
mod places;
mod support;
mod verify;
mod watch;
