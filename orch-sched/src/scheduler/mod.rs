//! The engine at work on an API server.

mod reports;
mod run;
mod write;

use crate::engine::Engine;
use crate::object::{SlimNamespace, SlimNode, SlimPod};
use crate::policies::DefaultBinder;
use crate::profile::{Profile, ProfileError};
use crate::queue::QueueTimes;
use kube::{Api, Client};
use orch_core::events::{self, EventRecorder, EventSink};
use orch_core::informer::Informer;
use orch_core::leader::LeaderElector;
use orch_core::ready::Ready;
use tokio_util::sync::CancellationToken;

/// Places the pods of an API server on its nodes.
///
/// It follows nodes, pods and namespaces through informers, decides one pod at a time, and writes bindings, events and conditions beside
/// that, a bounded number at once. What it knows is derived from the API: stopped at any moment and started again, it goes
/// on where the API stands.
///
/// ```no_run
/// use orch_sched::Scheduler;
/// # async fn example(client: kube::Client, shutdown: tokio_util::sync::CancellationToken)
/// # -> Result<(), orch_sched::BuildError> {
/// let scheduler = Scheduler::builder(client).build()?;
/// let ready = scheduler.ready();
/// tokio::join!(scheduler.run(shutdown), async {
///     ready.wait().await;
///     println!("placing pods");
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Scheduler {
    client: ApiClient,
    engine: Engine,
    recorders: Vec<EventRecorder>,
    sinks: Vec<EventSink>,
    elector: Option<LeaderElector>,
    pods: Informer<SlimPod>,
    nodes: Informer<SlimNode>,
    namespaces: Informer<SlimNamespace>,
    ready: Ready,
    max_in_flight: usize,
}

/// Describes a [`Scheduler`].
#[derive(Debug)]
#[must_use]
pub struct SchedulerBuilder {
    client: ApiClient,
    profiles: Vec<Profile>,
    times: QueueTimes,
    seed: u64,
    host: String,
    max_in_flight: usize,
    elector: Option<LeaderElector>,
}

/// Why a scheduler cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The profiles contradict themselves or each other.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Nothing may be in flight.
    #[error("a scheduler needs room for at least one request in flight")]
    NothingInFlight,
}

impl Scheduler {
    /// Begins a scheduler that speaks to the API server through `client`.
    pub fn builder(client: Client) -> SchedulerBuilder {
        SchedulerBuilder {
            client: ApiClient(client),
            profiles: Vec::new(),
            times: QueueTimes::default(),
            seed: fastrand::u64(..),
            host: String::new(),
            max_in_flight: 128,
            elector: None,
        }
    }

    /// Set when nodes and pods are known and the first pods have been decided about. With leader election also a scheduler
    /// that stands by becomes ready.
    #[must_use]
    pub fn ready(&self) -> Ready {
        self.ready.clone()
    }

    /// Places pods until `shutdown`. Requests in flight are then dropped; whether they went through shows on the next start.
    pub async fn run(self, shutdown: CancellationToken) {
        run::run(self, shutdown).await;
    }
}

impl SchedulerBuilder {
    /// Adds a profile: pods that name it are placed by its policies. Without any, the scheduler has upstream's default one.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profiles.push(profile);
        self
    }

    /// How long pods pause and wait. Default: upstream's.
    pub fn queue_times(mut self, times: QueueTimes) -> Self {
        self.times = times;
        self
    }

    /// Decides between nodes that are equally good. Default: random.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The host named in events. Default: empty.
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// How many requests may be in flight; when so many are, no further pod is decided about. Default 128.
    pub fn max_in_flight(mut self, count: usize) -> Self {
        self.max_in_flight = count;
        self
    }

    /// Places pods only while this elector leads. The scheduler runs it.
    pub fn leader_election(mut self, elector: LeaderElector) -> Self {
        self.elector = Some(elector);
        self
    }

    /// The scheduler, idle until it is [run](Scheduler::run).
    ///
    /// # Errors
    /// When the profiles contradict themselves or each other, or nothing may be in flight.
    pub fn build(self) -> Result<Scheduler, BuildError> {
        if self.max_in_flight == 0 {
            return Err(BuildError::NothingInFlight);
        }
        let client = self.client.0;
        let given = if self.profiles.is_empty() {
            vec![Profile::upstream()]
        } else {
            self.profiles
        };
        let profiles: Vec<Profile> = given
            .into_iter()
            .map(|profile| profile.policy(DefaultBinder::new(client.clone())))
            .collect();
        let (recorders, sinks) = profiles
            .iter()
            .map(|profile| events::recorder(client.clone(), profile.name(), &self.host))
            .unzip();
        Ok(Scheduler {
            engine: Engine::new(profiles, self.times, self.seed)?,
            recorders,
            sinks,
            elector: self.elector,
            // Pods that are through hold nothing; to the informer they are gone.
            pods: Informer::builder(Api::all(client.clone()))
                .fields("status.phase!=Succeeded,status.phase!=Failed")
                .build(),
            nodes: Informer::builder(Api::all(client.clone())).build(),
            namespaces: Informer::builder(Api::all(client.clone())).build(),
            client: ApiClient(client),
            ready: Ready::new(),
            max_in_flight: self.max_in_flight,
        })
    }
}

/// A client that shows as its name only.
struct ApiClient(Client);

impl std::fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}
