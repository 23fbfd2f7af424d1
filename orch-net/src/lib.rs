//! The Kubernetes service proxy as a library: change tracking over Services and EndpointSlices, and backends that apply it.
