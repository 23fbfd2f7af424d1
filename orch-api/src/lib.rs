//! A Kubernetes API server as a library: a tower service with watch, validation, patches and server-side apply.
//!
//! [`ApiServer::builder`] takes a store and gives a server: a `tower::Service`, clients within the process
//! ([`ApiServer::client`]), and HTTPS ([`ApiServer::serve`]). For tests there is `testkit::TestServer` (feature
//! `testkit`).
//!
//! ```
//! use std::sync::Arc;
//!
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use kube::Api;
//! use kube::api::PostParams;
//! use orch_api::{ApiServer, UserInfo};
//! use orch_store::MemoryStore;
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
//! let server = ApiServer::builder(Arc::new(MemoryStore::new())).build().await?;
//! let maps: Api<ConfigMap> = Api::default_namespaced(server.client(UserInfo::admin()));
//! let map = serde_json::from_value(serde_json::json!({"metadata": {"name": "greeting"}, "data": {"text": "hello"}}))?;
//! let created = maps.create(&PostParams::default(), &map).await?;
//! assert!(created.metadata.uid.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(
    test,
    allow(
        clippy::needless_pass_by_value,
        reason = "what makes objects for tests takes JSON as it is written there"
    )
)]

pub mod admission;
pub mod apply;
pub mod authn;
pub mod authz;
mod bootstrap;
mod cache;
mod context;
mod conversion;
mod crd;
mod decode;
mod error;
mod generic;
mod http;
pub mod kinds;
mod metrics;
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
