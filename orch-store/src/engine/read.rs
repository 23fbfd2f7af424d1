use std::ops::Bound;

use bytes::Bytes;

use super::{Engine, State, Version};
use crate::{KeyValue, ListOptions, ListPage, Read, Revision, StoreError};

/// How many keys a list looks at while it holds the lock once, so that a long list does not hold up writers.
const CHUNK: usize = 1024;

impl Engine {
    pub(crate) fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Read, StoreError> {
        self.state.read().get(key, at)
    }

    pub(crate) fn list(&self, prefix: &[u8], options: &ListOptions) -> Result<ListPage, StoreError> {
        loop {
            let at = options.at.unwrap_or_else(|| self.revision());
            match self.list_at(prefix, options, at) {
                // Compaction overtook a list that had not asked for a revision: begin again with a newer one.
                Err(error) if error.is_compacted() && options.at.is_none() => {}
                result => return result,
            }
        }
    }

    /// The keys after `after` as they were at `revision`, found among the next `max` keys.
    pub(crate) fn snapshot(&self, after: Option<&Bytes>, revision: u64, max: usize) -> Chunk {
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_ref()));
        let state = self.state.read();
        let mut chunk = Chunk {
            keys: Vec::with_capacity(max),
            reached: None,
        };
        let mut looked_at = 0;
        for (key, version) in state.index.range(b"", start, revision) {
            looked_at += 1;
            if let Some(version) = version {
                chunk.keys.push((key.clone(), version.clone()));
            }
            if looked_at == max {
                chunk.reached = Some(key.clone());
                break;
            }
        }
        chunk
    }

    fn list_at(&self, prefix: &[u8], options: &ListOptions, at: Revision) -> Result<ListPage, StoreError> {
        let mut scan = Scan::new(prefix, options, at);
        loop {
            let state = self.state.read();
            // Checked for each chunk: versions that the list needs may be gone after a compaction.
            state.check_readable(at)?;
            if scan.run(&state, CHUNK) {
                return Ok(scan.into_page());
            }
        }
    }
}

impl State {
    pub(crate) fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Read, StoreError> {
        let revision = at.unwrap_or(Revision(self.published));
        self.check_readable(revision)?;
        let kv = self
            .index
            .at(key, revision.0)
            .and_then(|(key, version)| version.to_kv(key));
        Ok(Read { kv, revision })
    }

    /// Lists in one go: for a state that nobody writes to.
    pub(crate) fn list(&self, prefix: &[u8], options: &ListOptions) -> Result<ListPage, StoreError> {
        let at = options.at.unwrap_or(Revision(self.published));
        self.check_readable(at)?;
        let mut scan = Scan::new(prefix, options, at);
        scan.run(self, usize::MAX);
        Ok(scan.into_page())
    }
}

/// Some keys of the state at one revision, for a checkpoint.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) keys: Vec<(Bytes, Version)>,
    /// The last key that was looked at, or `None` when there are no more.
    pub(crate) reached: Option<Bytes>,
}

/// A list under way.
struct Scan<'a> {
    prefix: &'a [u8],
    options: &'a ListOptions,
    at: Revision,
    /// The last key that was looked at.
    reached: Option<Bytes>,
    items: Vec<KeyValue>,
    beyond: usize,
}

impl<'a> Scan<'a> {
    fn new(prefix: &'a [u8], options: &'a ListOptions, at: Revision) -> Self {
        Self {
            prefix,
            options,
            at,
            reached: options.start_after.clone(),
            items: Vec::new(),
            beyond: 0,
        }
    }

    /// Looks at the next `chunk` keys; returns whether the list is complete.
    fn run(&mut self, state: &State, chunk: usize) -> bool {
        let limit = self.options.limit.unwrap_or(usize::MAX);
        let reached = self.reached.take();
        let start = match &reached {
            Some(key) if key.as_ref() >= self.prefix => Bound::Excluded(key.as_ref()),
            _ => Bound::Included(self.prefix),
        };
        let mut looked_at = 0;
        let mut last = None;
        for (key, version) in state.index.range(self.prefix, start, self.at.0) {
            looked_at += 1;
            last = Some(key);
            if let Some(kv) = version.and_then(|version| version.to_kv(key)) {
                if self.items.len() < limit {
                    self.items.push(kv);
                } else {
                    self.beyond += 1;
                    if !self.options.count {
                        return true;
                    }
                }
            }
            if looked_at == chunk {
                break;
            }
        }
        self.reached = last.cloned();
        looked_at < chunk
    }

    fn into_page(self) -> ListPage {
        ListPage {
            items: self.items,
            revision: self.at,
            more: self.beyond > 0,
            remaining: self.options.count.then_some(self.beyond),
        }
    }
}
