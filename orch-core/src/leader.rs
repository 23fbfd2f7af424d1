//! Leader election: of several copies of a program one works, the others stand by.
//!
//! The copies contend for a `coordination.k8s.io/v1` Lease with upstream's fields and rules, so that they also take
//! turns with programs that use client-go. Time is measured by each copy's own clock from when it saw the Lease
//! change; clocks need not agree, only run at like speeds.
//!
//! ```no_run
//! use orch_core::leader::LeaderElector;
//! # async fn example(client: kube::Client, shutdown: tokio_util::sync::CancellationToken) {
//! let elector = LeaderElector::builder(client, "kube-system", "my-controller", "host-1_a2f0").build();
//! let mut leadership = elector.leadership();
//! tokio::join!(elector.run(shutdown), async {
//!     while leadership.changed().await.is_ok() {
//!         println!("leading: {}", leadership.borrow().leading);
//!     }
//! });
//! # }
//! ```

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leadership {
    /// Whether this copy leads.
    pub leading: bool,
    /// The identity in the Lease, once it was seen.
    pub holder: Option<String>,
}

/// Contends for a Lease.
#[derive(Debug)]
pub struct LeaderElector {
    leases: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
    leadership: watch::Sender<Leadership>,
}

/// Describes a [`LeaderElector`].
#[derive(Debug)]
#[must_use]
pub struct LeaderElectorBuilder(LeaderElector);

impl LeaderElectorBuilder {
    /// How long a leader that fell silent is waited for. Default 15 s.
    pub fn lease_duration(mut self, duration: Duration) -> Self {
        self.0.lease_duration = duration;
        self
    }

    /// How long a leader tries to renew before it gives up leading; less than the lease duration. Default 10 s.
    pub fn renew_deadline(mut self, deadline: Duration) -> Self {
        self.0.renew_deadline = deadline;
        self
    }

    /// The time between tries; less than the renew deadline. Default 2 s.
    pub fn retry_period(mut self, period: Duration) -> Self {
        self.0.retry_period = period;
        self
    }

    /// The elector.
    pub fn build(self) -> LeaderElector {
        self.0
    }
}

/// The Lease as last seen, and when by the own clock.
struct Observed {
    lease: Lease,
    at: Instant,
}

impl LeaderElector {
    /// Begins an elector for the Lease `name` in `namespace`. `identity` must differ between the copies.
    pub fn builder(client: Client, namespace: &str, name: &str, identity: &str) -> LeaderElectorBuilder {
        LeaderElectorBuilder(LeaderElector {
            leases: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            leadership: watch::Sender::default(),
        })
    }

    /// Who leads, as it changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Contends until `shutdown`; lost leadership is contended for again. On the way out a held Lease is released, so
    /// that another copy need not wait for it to expire.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut observed = None;
        let mut renewed = Instant::now();
        loop {
            let attempt = tokio::time::timeout(self.renew_deadline, self.try_acquire_or_renew(&mut observed));
            let held = tokio::select! {
                () = shutdown.cancelled() => break,
                attempt = attempt => match attempt {
                    Ok(Ok(held)) => held,
                    Ok(Err(error)) => {
                        tracing::debug!(lease = self.name, %error, "cannot acquire or renew the lease");
                        false
                    }
                    Err(_) => false,
                },
            };
            let now = Instant::now();
            if held {
                renewed = now;
            }
            self.publish(held, observed.as_ref(), now - renewed);
            let pause = match held {
                true => self.retry_period,
                // Contenders must not march in step.
                false => self.retry_period.mul_f64(1.0 + 0.2 * fastrand::f64()),
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        if self.leadership.borrow().leading {
            self.leadership.send_modify(|l| l.leading = false);
            self.release(observed).await;
        }
    }

    /// A renewal that failed ends leadership when another holds the Lease, or when it could not be renewed in time.
    fn publish(&self, held: bool, observed: Option<&Observed>, since_renewed: Duration) {
        let holder = observed.and_then(|o| holder(&o.lease)).map(str::to_owned);
        let mine = holder.as_deref() == Some(self.identity.as_str());
        self.leadership.send_if_modified(|present| {
            let leading = held || (present.leading && mine && since_renewed < self.renew_deadline);
            let new = Leadership { leading, holder };
            if new.leading != present.leading {
                tracing::info!(
                    lease = self.name,
                    identity = self.identity,
                    leading = new.leading,
                    "leadership changed"
                );
            }
            let changed = *present != new;
            *present = new;
            changed
        });
    }

    async fn try_acquire_or_renew(&self, observed: &mut Option<Observed>) -> Result<bool, kube::Error> {
        // A leader renews what it wrote itself without asking first; a conflict shows when that is outdated.
        let leading = self.leadership.borrow().leading;
        if leading
            && let Some(seen) = observed
            && let Ok(lease) = self.replace(&seen.lease).await
        {
            *seen = Observed {
                lease,
                at: Instant::now(),
            };
            return Ok(true);
        }
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            let lease = self
                .leases
                .create(&PostParams::default(), &self.first_lease())
                .await?;
            *observed = Some(Observed {
                lease,
                at: Instant::now(),
            });
            return Ok(true);
        };
        if observed.as_ref().is_none_or(|seen| seen.lease.spec != lease.spec) {
            *observed = Some(Observed {
                lease: lease.clone(),
                at: Instant::now(),
            });
        }
        if let Some(seen) = observed
            && self.is_held_by_another(&lease, seen.at)
        {
            return Ok(false);
        }
        let lease = self.replace(&lease).await?;
        *observed = Some(Observed {
            lease,
            at: Instant::now(),
        });
        Ok(true)
    }

    fn is_held_by_another(&self, lease: &Lease, seen_at: Instant) -> bool {
        let Some(holder) = holder(lease) else {
            return false;
        };
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let duration = seconds
            .and_then(|s| u64::try_from(s).ok())
            .map(Duration::from_secs);
        holder != self.identity && seen_at.elapsed() < duration.unwrap_or(self.lease_duration)
    }

    async fn replace(&self, present: &Lease) -> Result<Lease, kube::Error> {
        let mut lease = present.clone();
        lease.spec = Some(next_spec(
            present.spec.as_ref(),
            &self.identity,
            self.lease_duration,
            now(),
        ));
        self.leases
            .replace(&self.name, &PostParams::default(), &lease)
            .await
    }

    fn first_lease(&self) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(next_spec(None, &self.identity, self.lease_duration, now())),
        }
    }

    async fn release(&self, observed: Option<Observed>) {
        let Some(Observed { mut lease, .. }) = observed else {
            return;
        };
        let Some(spec) = &mut lease.spec else { return };
        let at = now();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.acquire_time = Some(at.clone());
        spec.renew_time = Some(at);
        let params = PostParams::default();
        let replace = self.leases.replace(&self.name, &params, &lease);
        match tokio::time::timeout(self.retry_period, replace).await {
            Ok(Ok(_)) => tracing::debug!(lease = self.name, "released the lease"),
            Ok(Err(error)) => {
                tracing::debug!(lease = self.name, %error, "cannot release the lease")
            }
            Err(_) => tracing::debug!(lease = self.name, "no time to release the lease"),
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

/// The spec that acquires or renews: a renewal keeps when it was acquired, a change of hands counts a transition.
fn next_spec(present: Option<&LeaseSpec>, identity: &str, duration: Duration, now: MicroTime) -> LeaseSpec {
    let same = present.is_some_and(|spec| spec.holder_identity.as_deref() == Some(identity));
    let transitions = present.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    let acquired = present
        .and_then(|spec| spec.acquire_time.clone())
        .filter(|_| same);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(i32::try_from(duration.as_secs().max(1)).unwrap_or(i32::MAX)),
        acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(if same || present.is_none() {
            transitions
        } else {
            transitions + 1
        }),
        ..LeaseSpec::default()
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_keeps_the_acquire_time_and_the_count() {
        let first = next_spec(None, "a", Duration::from_secs(15), now());
        assert_eq!(first.lease_transitions, Some(0));
        let renewed = next_spec(Some(&first), "a", Duration::from_secs(15), now());
        assert_eq!(renewed.acquire_time, first.acquire_time);
        assert_eq!(renewed.lease_transitions, Some(0));
        assert_eq!(renewed.lease_duration_seconds, Some(15));
    }

    #[test]
    fn a_change_of_hands_counts() {
        let first = next_spec(None, "a", Duration::from_secs(15), now());
        let taken = next_spec(Some(&first), "b", Duration::from_secs(15), now());
        assert_eq!(taken.holder_identity.as_deref(), Some("b"));
        assert_eq!(taken.lease_transitions, Some(1));
    }
}
