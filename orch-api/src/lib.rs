//! A Kubernetes API server as a library: a tower service with watch, validation, patches and server-side apply.

pub mod apply;
mod decode;
mod generic;
pub mod object;
pub mod patch;
pub mod resource;
pub mod schema;
pub mod strategy;

pub use decode::{DecodeError, Decoded};
