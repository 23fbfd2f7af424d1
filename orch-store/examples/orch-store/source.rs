//! Where keys are read from: a folder beside its process, or a store over its interface.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use orch_store::{EmbeddedStore, KeyValue, ListOptions, ListPage, Read, Revision, Snapshot, StoreError};

use crate::access::Access;
use crate::place::{self, Etcd, Place};
use crate::progress;

/// How many bytes of values a page should have.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
const PAGE_ITEMS: usize = 5000;

#[derive(Clone)]
pub(crate) enum Source {
    Snapshot(Arc<Snapshot>),
    Etcd(Arc<Etcd>),
}

/// A key, and when its time to live ends, if it is known to have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kv: KeyValue,
    pub(crate) expires: Option<SystemTime>,
}

impl Record {
    /// What is left of the time to live: `Some(None)` for a permanent key, `None` for one whose time has passed.
    pub(crate) fn time_left(&self) -> Option<Option<Duration>> {
        match self.expires {
            None => Some(None),
            Some(end) => {
                let left = end.duration_since(SystemTime::now()).ok()?;
                (!left.is_zero()).then_some(Some(left))
            }
        }
    }
}

impl Source {
    pub(crate) async fn open(place: &Place, access: &Access) -> anyhow::Result<Self> {
        match place {
            Place::Folder(path) => {
                let _turning = progress::spinner(format!("reading {place}"));
                let snapshot = EmbeddedStore::snapshot_of(path).await?;
                Ok(Self::Snapshot(Arc::new(snapshot)))
            }
            Place::Etcd(endpoints) => Ok(Self::Etcd(Arc::new(place::connect(access, endpoints).await?))),
        }
    }

    pub(crate) async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Read, StoreError> {
        match self {
            Self::Snapshot(snapshot) => snapshot.get(key, at),
            Self::Etcd(etcd) => etcd.store.get(key, at).await,
        }
    }

    pub(crate) async fn list(&self, prefix: &[u8], options: ListOptions) -> Result<ListPage, StoreError> {
        match self {
            Self::Snapshot(snapshot) => snapshot.list(prefix, &options),
            Self::Etcd(etcd) => etcd.store.list(prefix, options).await,
        }
    }

    /// The newest revision that a client may have been told of, when the state was at `revision`.
    pub(crate) fn shown(&self, revision: Revision) -> Revision {
        match self {
            Self::Snapshot(snapshot) => snapshot.shown().max(revision),
            Self::Etcd(_) => revision,
        }
    }

    /// The keys under a prefix, all at one revision: `at`, or the newest one.
    pub(crate) async fn pages(&self, prefix: &str, at: Option<Revision>) -> Result<Pages, StoreError> {
        let mut options = ListOptions::default().limit(0).count();
        options.at = at;
        let first = self.list(prefix.as_bytes(), options).await?;
        Ok(Pages {
            source: self.clone(),
            prefix: Bytes::copy_from_slice(prefix.as_bytes()),
            revision: first.revision,
            total: first.remaining.unwrap_or_default(),
            ends: HashMap::new(),
            after: None,
            limit: 100,
            done: false,
        })
    }
}

/// A list under way, page by page.
pub(crate) struct Pages {
    source: Source,
    prefix: Bytes,
    revision: Revision,
    total: usize,
    /// When keys of an etcd end, if that was asked for.
    ends: HashMap<Bytes, SystemTime>,
    after: Option<Bytes>,
    limit: usize,
    done: bool,
}

impl Pages {
    /// Also asks when keys end, where that is not told with each of them.
    pub(crate) async fn with_ends(mut self) -> Result<Self, StoreError> {
        if let Source::Etcd(etcd) = &self.source {
            let times = etcd.times_to_live(&self.prefix).await?;
            let now = SystemTime::now();
            self.ends = times.into_iter().map(|(key, left)| (key, now + left)).collect();
        }
        Ok(self)
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// How many keys there are in all.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// The next page, in the order of keys, with at most so many; `None` after the last.
    pub(crate) async fn next(&mut self, most: usize) -> Result<Option<Vec<Record>>, StoreError> {
        if self.done || most == 0 {
            return Ok(None);
        }
        let mut options = ListOptions::default()
            .limit(self.limit.min(most))
            .at(self.revision);
        options.start_after = self.after.clone();
        let page = self.source.list(&self.prefix, options).await?;
        self.done = !page.more;
        let Some(last) = page.items.last() else {
            return Ok(None);
        };
        self.after = Some(last.key.clone());
        self.limit = next_limit(&page.items);
        Ok(Some(page.items.into_iter().map(|kv| self.record(kv)).collect()))
    }
}

impl Pages {
    fn record(&self, kv: KeyValue) -> Record {
        let expires = match &self.source {
            Source::Snapshot(snapshot) => snapshot.expires(&kv),
            Source::Etcd(_) => self.ends.get(&kv.key).copied(),
        };
        Record { kv, expires }
    }
}

/// How many keys make a page of good size, if they go on like these.
fn next_limit(items: &[KeyValue]) -> usize {
    let bytes: usize = items.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
    let average = (bytes / items.len().max(1)).max(1);
    (PAGE_BYTES / average).clamp(1, PAGE_ITEMS)
}
