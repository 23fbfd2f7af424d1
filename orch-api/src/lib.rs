//! A Kubernetes API server as a library: a tower service with watch, validation, patches and server-side apply.
