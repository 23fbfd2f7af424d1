//! The store on real etcd servers: Debian's version and a current one, alone and as a cluster of three.
//!
//! `cargo xtask setup` brings the programs.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod access;
mod conformance;
mod faults;
mod interplay;
mod partition;
mod proxy;
mod server;
