//! The wire: paths, queries, content negotiation, bodies.

pub(crate) mod accept;
pub(crate) mod body;
pub(crate) mod gzip;
pub(crate) mod path;
pub(crate) mod protobuf;
pub(crate) mod query;
pub(crate) mod response;
