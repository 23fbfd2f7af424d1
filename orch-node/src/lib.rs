//! A Kubernetes node agent as a library: pod workers over any container runtime, and one built in.
