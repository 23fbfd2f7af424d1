//! A store on etcd, laid out as kube-apiserver lays it out.

mod convert;
mod failure;
mod feed;
mod history;
mod leases;
mod list;
mod members;
mod options;
mod version;
mod watcher;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::proto::PbAlarmMember;
use etcd_client::{
    AlarmAction, AlarmType, CompactionOptions, Compare, CompareOp, DeleteOptions, GetOptions, PutOptions,
    Txn, TxnOp, TxnResponse,
};
use tokio_util::sync::CancellationToken;

pub use self::options::EtcdOptions;

use self::convert::{header, key_value, signed};
use self::failure::{Failure, Refused};
use self::feed::Source;
use self::history::History;
use self::leases::Leases;
use self::members::Members;
use self::watcher::Feeds;
use crate::{
    Deleted, Health, KeyValue, Limits, ListOptions, ListPage, Read, Revision, Store, StoreError, Watcher,
};

/// A [`Store`] on an etcd cluster, version 3.4 or later.
///
/// Keys, values and revisions are etcd's own, so that etcdctl shows them, kube-apiserver and this store can follow each other,
/// and several of these stores can share one cluster.
///
/// **Members.** Calls go to one member and move on to the next when it fails. A read is repeated until
/// [its time](EtcdOptions::request_timeout) is over; a write only if it surely did not happen, otherwise it ends with
/// [`StoreError::Unavailable`] and its outcome is unknown.
///
/// **Watchers** of one prefix share one watch of etcd, which goes on after its last revision when the connection or the member
/// is lost. A watcher ends with [`StoreError::Compacted`] when what it has not delivered was compacted; that can also
/// happen to one that waits, if its connection is lost while compaction overtakes the last revision that it heard of.
///
/// **Time to live** is kept by etcd's leases, in whole seconds: a key outlives its time by a twentieth of it, at least one
/// second and at most a minute, and by what etcd itself needs, a few seconds when its leader changes. Keys that end
/// together share a revision.
///
/// **Old versions.** Before 3.4.25 and 3.5.8 etcd cannot say reliably how far a watch is. There a
/// [request for progress](crate::ProgressRequester) writes and removes a key that ends with `\0orch-progress`, right behind the
/// watched prefix; lists and watches do not show it. A user with limited rights needs them for that key too.
///
/// ```no_run
/// use orch_store::{EtcdStore, ListOptions, Store};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = EtcdStore::options()
///     .endpoint("https://10.0.0.1:2379")
///     .endpoint("https://10.0.0.2:2379")
///     .ca(std::fs::read("ca.crt")?)
///     .identity(std::fs::read("client.crt")?, std::fs::read("client.key")?)
///     .connect()
///     .await?;
/// let page = store.list(b"/registry/pods/", ListOptions::default().limit(500)).await?;
/// # Ok(()) }
/// ```
pub struct EtcdStore {
    members: Arc<Members>,
    history: Arc<History>,
    feeds: Arc<Feeds>,
    leases: Leases,
    limits: Limits,
    closed: CancellationToken,
}

impl EtcdStore {
    /// How to connect.
    pub fn options() -> EtcdOptions {
        EtcdOptions::default()
    }

    /// The keys with this prefix that end by themselves, each with the time that it has left, in whole seconds. For
    /// tools that carry keys elsewhere: it is not of one moment, and costs a call for each lease.
    ///
    /// # Errors
    /// Those of access and of the connection.
    pub async fn times_to_live(&self, prefix: &[u8]) -> Result<HashMap<Bytes, Duration>, StoreError> {
        let times = leases::times_to_live(&self.members, prefix).await;
        times.map_err(Failure::into_error)
    }

    fn new(members: Arc<Members>, options: &EtcdOptions) -> Self {
        let history = Arc::new(History::new(Arc::clone(&members), options.probe_key.clone()));
        let closed = CancellationToken::new();
        let source = Source {
            members: Arc::clone(&members),
            history: Arc::clone(&history),
            closed: closed.clone(),
        };
        Self {
            members,
            history,
            feeds: Arc::new(Feeds::new(source)),
            leases: Leases::default(),
            limits: options.limits,
            closed,
        }
    }

    /// Writes `key` if it is at `expected`, zero meaning that it does not exist. The answer to a guard that does not hold
    /// tells what is there.
    async fn put(
        &self,
        key: &Bytes,
        value: &Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Result<KeyValue, Option<KeyValue>>, StoreError> {
        self.limits.check_key(key)?;
        self.limits.check_value(value)?;
        let mut response = self.put_leased(key, value, expected, ttl).await?;
        if !response.succeeded() {
            return Ok(Err(found(&mut response, 0)));
        }
        let revision = header(response.0.header.as_ref());
        let written = found(&mut response, 1);
        Ok(Ok(KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: written.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: written.map_or(1, |kv| kv.version),
        }))
    }

    async fn put_leased(
        &self,
        key: &Bytes,
        value: &Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<TxnResponse, StoreError> {
        let mut attempts = 0;
        loop {
            let lease = match ttl {
                None => None,
                Some(ttl) => {
                    let lease = self.leases.get(&self.members, ttl).await;
                    Some(lease.map_err(Failure::into_error)?)
                }
            };
            let options = lease.map(|lease| PutOptions::new().with_lease(lease));
            let mut writes = vec![TxnOp::put(key.to_vec(), value.to_vec(), options)];
            if expected != Revision::ZERO {
                // What the write makes of the key, which the answer to a write does not tell.
                let keys_only = GetOptions::new().with_keys_only();
                writes.push(TxnOp::get(key.to_vec(), Some(keys_only)));
            }
            match self.guarded(key, Some(expected), writes).await {
                Err(Failure::Refused(Refused::NoLease)) if attempts < 3 => {
                    attempts += 1;
                    self.leases.forget(lease.unwrap_or_default()).await;
                }
                Err(Failure::Refused(Refused::TooLarge)) => {
                    return Err(StoreError::ValueTooLarge {
                        size: value.len(),
                        limit: value.len().saturating_sub(1),
                    });
                }
                result => return result.map_err(Failure::into_error),
            }
        }
    }

    /// A transaction that does `operations` if `key` is at `expected`, if anything is, and otherwise reads it.
    async fn guarded(
        &self,
        key: &Bytes,
        expected: Option<Revision>,
        operations: Vec<TxnOp>,
    ) -> Result<TxnResponse, Failure> {
        let guard =
            expected.map(|expected| Compare::mod_revision(key.to_vec(), CompareOp::Equal, signed(expected)));
        let transaction = Txn::new()
            .when(guard.into_iter().collect::<Vec<_>>())
            .and_then(operations)
            .or_else([TxnOp::get(key.to_vec(), None)]);
        let write = self.members.write(|connection| {
            let transaction = transaction.clone();
            async move { connection.kv.clone().txn(transaction).await }
        });
        write.await
    }

    /// What stands in the way of writes, by the alarms that etcd has raised.
    async fn alarms(&self) -> Result<Vec<PbAlarmMember>, Failure> {
        let ask = self.members.read(|connection| async move {
            let mut client = connection.client.maintenance_client();
            client.alarm(AlarmAction::Get, AlarmType::None, None).await
        });
        Ok(ask.await?.0.alarms)
    }
}

/// The key that the transaction's operation at `index` found.
fn found(response: &mut TxnResponse, index: usize) -> Option<KeyValue> {
    convert::range(response, index)?.kvs.pop().map(key_value)
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Read, StoreError> {
        if at == Some(Revision::ZERO) {
            self.history.check(Revision::ZERO).await?;
            return Ok(Read {
                kv: None,
                revision: Revision::ZERO,
            });
        }
        let options = at.map(|at| GetOptions::new().with_revision(signed(at)));
        let read = self.members.read(|connection| {
            let (key, options) = (key.to_vec(), options.clone());
            async move { connection.kv.clone().get(key, options).await }
        });
        match read.await {
            Ok(mut response) => Ok(Read {
                revision: at.unwrap_or_else(|| header(response.0.header.as_ref())),
                kv: response.0.kvs.pop().map(key_value),
            }),
            Err(failure) => Err(self.history.explain(failure, at.unwrap_or_default()).await),
        }
    }

    async fn list(&self, prefix: &[u8], options: ListOptions) -> Result<ListPage, StoreError> {
        list::list(&self.members, &self.history, prefix, &options).await
    }

    async fn create(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> Result<KeyValue, StoreError> {
        loop {
            match self.put(&key, &value, Revision::ZERO, ttl).await? {
                Ok(kv) => return Ok(kv),
                Err(Some(current)) => {
                    return Err(StoreError::AlreadyExists {
                        current: Box::new(current),
                    });
                }
                // The guard said that it exists, so it does; etcd has no such answer.
                Err(None) => tracing::debug!("etcd refused to create a key that does not exist"),
            }
        }
    }

    async fn update(
        &self,
        key: Bytes,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<KeyValue, StoreError> {
        if expected == Revision::ZERO {
            // To etcd that would mean a key that does not exist; here it is a guard that never holds.
            let current = self.get(&key, None).await?.kv.map(Box::new);
            return Err(StoreError::Conflict {
                key,
                expected,
                current,
            });
        }
        let written = self.put(&key, &value, expected, ttl).await?;
        written.map_err(|current| StoreError::Conflict {
            key,
            expected,
            current: current.map(Box::new),
        })
    }

    async fn delete(&self, key: &[u8], expected: Option<Revision>) -> Result<Deleted, StoreError> {
        self.limits.check_key(key)?;
        let key = Bytes::copy_from_slice(key);
        let deletion = TxnOp::delete(key.to_vec(), Some(DeleteOptions::new().with_prev_key()));
        let response = self.guarded(&key, expected, vec![deletion]).await;
        let mut response = response.map_err(Failure::into_error)?;
        let revision = header(response.0.header.as_ref());
        if !response.succeeded() {
            return Err(StoreError::Conflict {
                key,
                expected: expected.unwrap_or_default(),
                current: found(&mut response, 0).map(Box::new),
            });
        }
        match (convert::deleted(&mut response), expected) {
            (Some(previous), _) => Ok(Deleted { previous, revision }),
            (None, None) => Err(StoreError::NotFound { key, revision }),
            // "At revision zero" held because there is nothing.
            (None, Some(expected)) => Err(StoreError::Conflict {
                key,
                expected,
                current: None,
            }),
        }
    }

    async fn watch(&self, prefix: &[u8], from: Revision) -> Result<Box<dyn Watcher>, StoreError> {
        Ok(Box::new(self.feeds.watch(prefix, from).await?))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        if revision == Revision::ZERO {
            return Ok(());
        }
        let compact = self.members.write(|connection| async move {
            let options = CompactionOptions::new();
            connection
                .kv
                .clone()
                .compact(signed(revision), Some(options))
                .await
        });
        match compact.await {
            Ok(_) | Err(Failure::Refused(Refused::Compacted)) => Ok(()),
            Err(failure) => Err(self.history.explain(failure, revision).await),
        }
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.history.current().await.map_err(Failure::into_error)
    }

    async fn health(&self) -> Result<Health, StoreError> {
        let revision = self.history.current().await.map_err(Failure::into_error)?;
        let compacted = self.history.compacted().await.map_err(Failure::into_error)?;
        let health = Health::good(revision, compacted);
        match self.alarms().await {
            Ok(alarms) if alarms.is_empty() => Ok(health),
            Ok(alarms)
                if alarms
                    .iter()
                    .any(|alarm| alarm.alarm == AlarmType::Nospace as i32) =>
            {
                let reason = "etcd has raised the alarm NOSPACE: compact, defragment, then disarm it";
                Err(Failure::Refused(Refused::NoSpace(reason.into())).into_error())
            }
            Ok(alarms) => Err(StoreError::Unavailable {
                reason: format!("etcd has raised alarms: {alarms:?}"),
            }),
            // A user with limited rights cannot look.
            Err(Failure::Refused(Refused::Denied(reason))) => {
                Ok(health.warning(Some(format!("etcd's alarms cannot be read: {reason}"))))
            }
            Err(failure) => Err(failure.into_error()),
        }
    }
}
