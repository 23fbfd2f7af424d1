use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::Event;
use crate::fanout::Router;

/// Routes events to watchers by the prefix of the key. It costs one look-up for each *length* of prefix that is
/// watched, of which there are few, not one for each watcher.
#[derive(Debug, Default)]
pub(crate) struct PrefixTopics {
    lengths: BTreeMap<usize, usize>,
}

impl Router<Arc<Event>> for PrefixTopics {
    type Topic = Bytes;

    fn matches(&self, prefix: &Bytes, event: &Arc<Event>) -> bool {
        event.key().starts_with(prefix)
    }

    fn route(&self, event: &Arc<Event>, visit: &mut dyn FnMut(&Bytes)) {
        let key = event.key();
        for &length in self.lengths.keys() {
            if length > key.len() {
                break;
            }
            visit(&key.slice(..length));
        }
    }

    fn joined(&mut self, prefix: &Bytes) {
        *self.lengths.entry(prefix.len()).or_default() += 1;
    }

    fn left(&mut self, prefix: &Bytes) {
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }
}
