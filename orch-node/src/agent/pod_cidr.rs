//! The pod CIDR on its way from the Node to the runtime.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

/// The pauses after attempts that failed: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Which pod CIDR the runtime should have, which it has, and when it is told again.
#[derive(Debug, Default)]
pub(super) struct PodCidr {
    wanted: Option<String>,
    taken: Option<String>,
    pause: Option<Duration>,
    retry_at: Option<Instant>,
}

impl PodCidr {
    /// Takes note of the Node's CIDR, or of `fallback` while it has none. Another one than before is told at once.
    pub(super) fn want(&mut self, node: &Node, fallback: Option<&String>) {
        let assigned = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref());
        let Some(cidr) = assigned.filter(|cidr| !cidr.is_empty()).or(fallback) else {
            return;
        };
        if self.wanted.as_ref() != Some(cidr) {
            self.wanted = Some(cidr.clone());
            self.pause = None;
            self.retry_at = None;
        }
    }

    /// The CIDR that the runtime is to be told now.
    pub(super) fn due(&self, now: Instant) -> Option<String> {
        let open = self.wanted.is_some() && self.wanted != self.taken;
        let waiting = self.retry_at.is_some_and(|at| at > now);
        self.wanted.clone().filter(|_| open && !waiting)
    }

    /// The runtime has it.
    pub(super) fn took(&mut self, cidr: String) {
        self.taken = Some(cidr);
        self.pause = None;
        self.retry_at = None;
    }

    /// The runtime refused it: it is told again after a pause that doubles each time.
    pub(super) fn failed(&mut self, now: Instant) {
        let pause = self.pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(MAX_PAUSE));
        self.pause = Some(pause);
        self.retry_at = Some(now + pause);
    }

    /// Ends when it is time to tell the runtime again; never, if nothing is open.
    pub(super) async fn retry(&self) {
        match self.retry_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSpec;

    use super::*;

    fn node(cidr: &str) -> Node {
        Node {
            spec: Some(NodeSpec {
                pod_cidr: Some(cidr.into()),
                ..NodeSpec::default()
            }),
            ..Node::default()
        }
    }

    #[test]
    fn a_cidr_is_told_once_and_the_nodes_own_goes_before_the_fallback() {
        let now = Instant::now();
        let fallback = "10.0.0.0/24".to_owned();
        let mut cidr = PodCidr::default();
        assert_eq!(cidr.due(now), None);
        cidr.want(&node(""), Some(&fallback));
        assert_eq!(cidr.due(now), Some(fallback.clone()));
        cidr.took(fallback.clone());
        cidr.want(&node(""), Some(&fallback));
        assert_eq!(cidr.due(now), None);
        cidr.want(&node("10.1.0.0/24"), Some(&fallback));
        assert_eq!(cidr.due(now).as_deref(), Some("10.1.0.0/24"));
    }

    #[test]
    fn a_refused_cidr_is_told_again_after_growing_pauses() {
        let mut now = Instant::now();
        let mut cidr = PodCidr::default();
        cidr.want(&node("10.0.0.0/24"), None);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert!(cidr.due(now).is_some());
            cidr.failed(now);
            assert_eq!(cidr.due(now), None);
            let at = cidr.retry_at.unwrap();
            pauses.push((at - now).as_millis());
            now = at;
        }
        assert_eq!(
            pauses,
            [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]
        );
        cidr.want(&node("10.0.0.0/24"), None);
        cidr.failed(now);
        assert_eq!(cidr.due(now), None, "the same one again changes nothing");
        cidr.want(&node("10.1.0.0/24"), None);
        assert!(cidr.due(now).is_some(), "another one does not wait");
        cidr.failed(now);
        assert_eq!(cidr.retry_at, Some(now + FIRST_PAUSE));
    }

    #[tokio::test]
    async fn what_failed_wakes_its_keeper() {
        let mut cidr = PodCidr::default();
        cidr.want(&node("10.0.0.0/24"), None);
        cidr.failed(Instant::now());
        cidr.retry().await;
        assert!(cidr.due(Instant::now()).is_some());
        cidr.took("10.0.0.0/24".into());
        assert!(futures::FutureExt::now_or_never(cidr.retry()).is_none());
    }
}
