//! The controllers of a Kubernetes control plane: Deployment, ReplicaSet, EndpointSlice, Namespace, garbage collection and more.
