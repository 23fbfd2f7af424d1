//! A Kubernetes API server as a library: a tower service with watch, validation, patches and server-side apply.

pub mod admission;
pub mod apply;
pub mod authz;
mod bootstrap;
mod cache;
mod context;
mod decode;
mod error;
mod generic;
mod http;
pub mod kinds;
pub mod node;
pub mod object;
pub mod openapi;
mod ownership;
pub mod patch;
mod registry;
pub mod resource;
pub mod schema;
mod server;
mod services;
pub mod strategy;
mod tasks;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
mod user;

pub use self::decode::{DecodeError, Decoded};
pub use self::http::body::Body;
pub use self::server::{ApiServer, ApiServerBuilder, ApiService, BuildError};
pub use self::user::UserInfo;

pub(crate) use self::error::store_error;
