//! A Kubernetes scheduler as a library: a framework of policies over a columnar, incrementally kept cluster state.
