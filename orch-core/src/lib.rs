//! What every part of a Kubernetes-style control plane shares: quantities, selectors, API errors, informers, work queues, controllers, leader election.
