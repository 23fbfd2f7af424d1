//! The controllers of a Kubernetes control plane.

mod adoption;
mod expectations;
mod pods;

pub mod deployment;
pub mod replica_set;
