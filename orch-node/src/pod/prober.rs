//! The probes of a running container, each a loop of its own, with upstream's thresholds.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::{mpsc, watch};

use super::handler::{self, Target};
use crate::runtime::{ContainerId, Runtime};

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub(crate) const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// The name at the start of upstream's messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What a probe found.
#[derive(Debug)]
pub(crate) struct ProbeReport {
    pub(crate) container: ContainerId,
    pub(crate) name: String,
    pub(crate) kind: ProbeKind,
    /// What went wrong, for an event.
    pub(crate) failure: Option<String>,
    /// Set when the threshold was reached: passed or not.
    pub(crate) verdict: Option<bool>,
}

/// One probe of one running container.
pub(crate) struct Prober {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) id: ContainerId,
    pub(crate) container: Container,
    pub(crate) kind: ProbeKind,
    pub(crate) ip: String,
    pub(crate) started_at: Timestamp,
    /// Whether the startup probe was passed; the other probes wait for it.
    pub(crate) started: watch::Receiver<bool>,
    pub(crate) reports: mpsc::UnboundedSender<ProbeReport>,
}

/// Counts equal results in a row.
#[derive(Debug, Default)]
struct Tally {
    last: Option<bool>,
    run: i32,
}

impl Tally {
    /// Takes a result; the verdict when it was the same often enough.
    fn count(&mut self, passed: bool, probe: &Probe) -> Option<bool> {
        self.run = if self.last == Some(passed) {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last = Some(passed);
        let threshold = if passed {
            probe.success_threshold.unwrap_or(1)
        } else {
            probe.failure_threshold.unwrap_or(3)
        };
        (self.run >= threshold.max(1)).then_some(passed)
    }
}

fn seconds(value: Option<i32>, default: i32) -> Duration {
    Duration::from_secs(u64::try_from(value.unwrap_or(default)).unwrap_or(0))
}

impl Prober {
    /// Probes until the container is to be restarted, the startup is over, or it is dropped.
    pub(crate) async fn run(mut self) {
        let Some(probe) = self.kind.of(&self.container).cloned() else {
            return;
        };
        self.initial_delay(&probe).await;
        if self.kind != ProbeKind::Startup && self.started.wait_for(|started| *started).await.is_err() {
            return;
        }
        let mut tally = Tally::default();
        let mut told = None;
        loop {
            let target = Target {
                runtime: &*self.runtime,
                id: &self.id,
                container: &self.container,
                ip: &self.ip,
            };
            let failure = handler::probe(&target, &probe).await.err();
            let verdict = tally.count(failure.is_none(), &probe);
            if failure.is_some() || (verdict.is_some() && verdict != told) {
                told = verdict.or(told);
                self.report(failure, verdict);
            }
            let over = match self.kind {
                ProbeKind::Startup => verdict.is_some(),
                ProbeKind::Liveness => verdict == Some(false),
                ProbeKind::Readiness => false,
            };
            if over {
                return;
            }
            tokio::time::sleep(seconds(probe.period_seconds, 10).max(Duration::from_secs(1))).await;
        }
    }

    async fn initial_delay(&self, probe: &Probe) {
        let delay = seconds(probe.initial_delay_seconds, 0);
        let passed = Timestamp::now().duration_since(self.started_at);
        let passed = Duration::try_from(passed).unwrap_or_default();
        tokio::time::sleep(delay.saturating_sub(passed)).await;
    }

    fn report(&self, failure: Option<String>, verdict: Option<bool>) {
        let report = ProbeReport {
            container: self.id.clone(),
            name: self.container.name.clone(),
            kind: self.kind,
            failure,
            verdict,
        };
        // The pod's worker is gone only when this probe is about to be dropped, too.
        self.reports.send(report).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_its_threshold_in_a_row() {
        let probe = Probe {
            failure_threshold: Some(3),
            success_threshold: Some(2),
            ..Probe::default()
        };
        let mut tally = Tally::default();
        let verdicts: Vec<Option<bool>> = [false, false, true, false, false, false, true, true]
            .into_iter()
            .map(|r| tally.count(r, &probe))
            .collect();
        assert_eq!(
            verdicts,
            [None, None, None, None, None, Some(false), None, Some(true)]
        );
    }
}
