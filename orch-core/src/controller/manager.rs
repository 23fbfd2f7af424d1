//! Runs controllers.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Controller, Outcome, Watches};
use crate::informer::Informers;
use crate::key::NamespacedName;
use crate::leader::{LeaderElector, Leadership};
use crate::queue::WorkQueue;
use crate::ready::Ready;

/// Runs a set of controllers over one set of informers.
pub struct Manager {
    informers: Informers,
    run_informers: bool,
    controllers: Vec<Arc<dyn Controller>>,
    leader: Option<LeaderElector>,
    ready: Ready,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.controllers.iter().map(|c| c.name()).collect();
        f.debug_struct("Manager")
            .field("controllers", &names)
            .field("leader_election", &self.leader.is_some())
            .finish_non_exhaustive()
    }
}

/// Describes a [`Manager`].
#[derive(Debug)]
#[must_use]
pub struct ManagerBuilder(Manager);

impl ManagerBuilder {
    /// Adds a controller.
    pub fn controller(mut self, controller: Arc<dyn Controller>) -> Self {
        self.0.controllers.push(controller);
        self
    }

    /// Works only while `elector` leads. Events are collected meanwhile, so that a new leader starts at once.
    pub fn leader_election(mut self, elector: LeaderElector) -> Self {
        self.0.leader = Some(elector);
        self
    }

    /// Leaves running the informers to the caller, who shares them with others.
    pub fn informers_run_elsewhere(mut self) -> Self {
        self.0.run_informers = false;
        self
    }

    /// The manager.
    pub fn build(self) -> Manager {
        self.0
    }
}

impl Manager {
    /// Begins a manager of controllers that read `informers`.
    pub fn builder(informers: Informers) -> ManagerBuilder {
        ManagerBuilder(Manager {
            informers,
            run_informers: true,
            controllers: Vec::new(),
            leader: None,
            ready: Ready::new(),
        })
    }

    /// Set when every controller has reconciled, once, all that existed when it began. With leader election, when it
    /// has done so or the informers have synced and another leads.
    pub fn ready(&self) -> Ready {
        self.ready.clone()
    }

    /// Runs until `shutdown`; then each worker finishes the key it is at.
    ///
    /// With leader election the workers run only while the elector leads. When leadership is lost, each finishes the
    /// key it is at and then stops; what is queued stays queued, and events go on to be collected. The elector
    /// contends for the Lease again, and once it leads, workers start anew. So losing leadership never ends this
    /// function. At `shutdown` the Lease is held until the workers have stopped, and is released then.
    pub async fn run(self, shutdown: CancellationToken) {
        let Manager {
            informers,
            run_informers,
            controllers,
            leader,
            ready,
        } = self;
        let stop = shutdown.child_token();
        let _stop_on_drop = stop.clone().drop_guard();
        let mut tasks = JoinSet::new();
        // Stopped last: what is being reconciled may still read them.
        let informers_stop = CancellationToken::new();
        let _stop_informers = informers_stop.clone().drop_guard();
        let mut informer_tasks = JoinSet::new();
        let lines: Vec<_> = controllers.into_iter().map(Line::new).collect();
        if run_informers {
            informer_tasks.spawn(informers.run(informers_stop.clone()));
        }
        let leading = leader.as_ref().map(LeaderElector::leadership);
        // Released last: nobody else may lead while a worker is still at a key.
        let elector_stop = CancellationToken::new();
        let _stop_elector = elector_stop.clone().drop_guard();
        let mut elector_tasks = JoinSet::new();
        if let Some(elector) = leader {
            elector_tasks.spawn(elector.run(elector_stop.clone()));
        }
        let each = lines
            .iter()
            .map(|line| line.first_pass.clone())
            .collect::<Vec<_>>();
        for line in lines {
            tasks.spawn(line.run(leading.clone(), stop.clone()));
        }
        tasks.spawn(async move {
            tokio::select! {
                () = Ready::wait_all(each) => ready.set(),
                () = stop.cancelled() => {}
            }
        });
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a controller's task failed");
            }
        }
        elector_stop.cancel();
        while elector_tasks.join_next().await.is_some() {}
        informers_stop.cancel();
        while informer_tasks.join_next().await.is_some() {}
    }
}

/// One controller with its queue.
struct Line {
    controller: Arc<dyn Controller>,
    queue: WorkQueue<NamespacedName>,
    synced: Vec<Ready>,
    first_pass: Ready,
}

impl Line {
    fn new(controller: Arc<dyn Controller>) -> Self {
        let queue = WorkQueue::new();
        let mut watches = Watches::new(queue.clone());
        controller.watches(&mut watches);
        Line {
            controller,
            queue,
            synced: watches.into_synced(),
            first_pass: Ready::new(),
        }
    }

    async fn run(self, leading: Option<tokio::sync::watch::Receiver<Leadership>>, stop: CancellationToken) {
        let name = self.controller.name().to_owned();
        tokio::select! {
            () = Ready::wait_all(self.synced.clone()) => {}
            () = stop.cancelled() => return,
        }
        tracing::debug!(controller = name, keys = self.queue.len(), "synced");
        match leading {
            None => self.work(&stop).await,
            Some(leading) => self.work_while_leading(leading, &stop).await,
        }
        tracing::debug!(controller = name, "stopped");
    }

    async fn work_while_leading(
        &self,
        mut leading: tokio::sync::watch::Receiver<Leadership>,
        stop: &CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                led = leading.wait_for(|l| l.leading || l.holder.is_some()) => match led {
                    Ok(l) if l.leading => {}
                    Ok(_) => self.first_pass.set(),
                    Err(_) => return,
                },
            }
            tokio::select! {
                () = stop.cancelled() => return,
                led = leading.wait_for(|l| l.leading) => if led.is_err() { return },
            }
            let term = stop.child_token();
            let lost = async {
                let gone = leading.wait_for(|l| !l.leading).await.is_err();
                term.cancel();
                gone
            };
            let (gone, ()) = tokio::join!(lost_or_stopped(lost, stop), self.work(&term));
            if gone {
                return;
            }
        }
    }

    /// Runs the workers until `stop`; each finishes the key it is at.
    async fn work(&self, stop: &CancellationToken) {
        let first_pass = Arc::new(FirstPass {
            left: AtomicUsize::new(self.queue.len()),
            done: self.first_pass.clone(),
        });
        if first_pass.left.load(Ordering::Acquire) == 0 {
            self.first_pass.set();
        }
        let mut workers = JoinSet::new();
        for _ in 0..self.controller.workers().max(1) {
            let worker = Worker {
                controller: Arc::clone(&self.controller),
                queue: self.queue.clone(),
                first_pass: Arc::clone(&first_pass),
            };
            workers.spawn(worker.run(stop.clone()));
        }
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = ended {
                tracing::error!(controller = self.controller.name(), %error, "a worker failed");
            }
        }
    }
}

async fn lost_or_stopped(lost: impl Future<Output = bool>, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        gone = lost => gone,
    }
}

/// Counts down the keys that were there at the start. The queue is first in, first out, so after as many keys as it
/// held, each of them had its turn.
struct FirstPass {
    left: AtomicUsize,
    done: Ready,
}

impl FirstPass {
    fn one_more(&self) {
        if self.done.is_ready() {
            return;
        }
        let before = self
            .left
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        if before == Ok(1) {
            self.done.set();
        }
    }
}

struct Worker {
    controller: Arc<dyn Controller>,
    queue: WorkQueue<NamespacedName>,
    first_pass: Arc<FirstPass>,
}

impl Worker {
    async fn run(self, stop: CancellationToken) {
        loop {
            let work = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                work = self.queue.get() => work,
            };
            let Some(key) = work else { return };
            self.one(&key).await;
            drop(key);
            self.first_pass.one_more();
        }
    }

    async fn one(&self, key: &NamespacedName) {
        let name = self.controller.name();
        let result = AssertUnwindSafe(self.controller.reconcile(key))
            .catch_unwind()
            .await;
        match result {
            Ok(Ok(Outcome::Done)) => self.queue.forget(key),
            Ok(Ok(Outcome::RequeueAfter(delay))) => {
                self.queue.forget(key);
                self.queue.add_after(key.clone(), delay);
            }
            Ok(Err(error)) => {
                let failures = self.queue.failures(key);
                // Conflicts with a stale cache are everyday life and gone at the next try.
                if failures < 5 {
                    tracing::debug!(controller = name, %key, failures, error, "will retry");
                } else {
                    tracing::warn!(controller = name, %key, failures, error, "keeps failing");
                }
                self.queue.add_rate_limited(key.clone());
            }
            Err(_) => {
                tracing::error!(controller = name, %key, "reconciling panicked");
                self.queue.add_rate_limited(key.clone());
            }
        }
    }
}
