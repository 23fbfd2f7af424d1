//! One object in the cache, and one change of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Deserialize;

use super::splice::Seam;

/// An object as it is served: its bytes with the resourceVersion in them, and what selectors look at.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Bytes,
    pub(crate) revision: u64,
    /// What readers get.
    pub(crate) json: Bytes,
    seam: Option<Seam>,
    pub(crate) name: Box<str>,
    pub(crate) namespace: Box<str>,
    pub(crate) labels: BTreeMap<String, String>,
    /// The kind's selectable fields, found out when the first field selector asks.
    pub(crate) fields: OnceLock<Vec<(Cow<'static, str>, String)>>,
}

#[derive(Deserialize)]
struct Slim {
    metadata: SlimMetadata,
}

#[derive(Deserialize)]
struct SlimMetadata {
    #[serde(default)]
    name: Box<str>,
    #[serde(default)]
    namespace: Option<Box<str>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Entry {
    /// Makes an entry of a stored value.
    ///
    /// # Errors
    /// When the value is not the JSON of an object.
    pub(crate) fn new(key: Bytes, stored: &[u8], revision: u64) -> Result<Self, serde_json::Error> {
        let slim: Slim = serde_json::from_slice(stored)?;
        let seam = Seam::find(stored);
        let json = seam.map_or_else(
            || Bytes::copy_from_slice(stored),
            |seam| seam.splice(stored, revision),
        );
        Ok(Self {
            key,
            revision,
            json,
            seam,
            name: slim.metadata.name,
            namespace: slim.metadata.namespace.unwrap_or_default(),
            labels: slim.metadata.labels.unwrap_or_default(),
            fields: OnceLock::new(),
        })
    }
}

/// What a change looks like to a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

/// One change of one object, shared by all who watch it.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    /// The object after the change, or its last state when it was deleted; always with the change's revision.
    pub(crate) entry: Arc<Entry>,
    /// The object before the change.
    pub(crate) previous: Option<Arc<Entry>>,
    pub(crate) deleted: bool,
    frames: [OnceLock<Bytes>; 3],
    /// The object as it was before, with the revision of this change: what a watcher gets whose selector it left.
    departed: OnceLock<Arc<Entry>>,
}

impl Change {
    pub(crate) fn put(entry: Arc<Entry>, previous: Option<Arc<Entry>>) -> Self {
        Self {
            revision: entry.revision,
            entry,
            previous,
            deleted: false,
            frames: Default::default(),
            departed: OnceLock::new(),
        }
    }

    /// `last` is the object's last state under the revision of the deletion.
    pub(crate) fn delete(last: Arc<Entry>, previous: Arc<Entry>) -> Self {
        Self {
            revision: last.revision,
            entry: last,
            previous: Some(previous),
            deleted: true,
            frames: Default::default(),
            departed: OnceLock::new(),
        }
    }

    /// What a watcher that sees only matching objects is told: nothing, or an event of this type.
    pub(crate) fn seen_by(&self, matches: impl Fn(&Entry) -> bool) -> Option<EventType> {
        let before = self.previous.as_deref().is_some_and(&matches);
        let after = !self.deleted && matches(&self.entry);
        match (before, after) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }

    /// The object that goes with an event of that type.
    pub(crate) fn object(&self, event: EventType) -> &Arc<Entry> {
        match (event, &self.previous) {
            (EventType::Deleted, Some(previous)) if !self.deleted => self
                .departed
                .get_or_init(|| Arc::new(previous.at_revision(self.revision))),
            _ => &self.entry,
        }
    }

    /// The event as it goes over the wire, made once for all watchers.
    pub(crate) fn frame(&self, event: EventType) -> Bytes {
        self.frames[event as usize]
            .get_or_init(|| frame(event.as_str(), &self.object(event).json))
            .clone()
    }
}

impl Entry {
    /// The same object under another revision.
    pub(crate) fn at_revision(&self, revision: u64) -> Self {
        let json = match self.seam {
            Some(seam) => seam.replace(&self.json, self.revision, revision),
            None => self.json.clone(),
        };
        Self {
            key: self.key.clone(),
            revision,
            json,
            seam: self.seam,
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            labels: self.labels.clone(),
            fields: self.fields.clone(),
        }
    }

    /// The value of a selectable field, once [`fields`](Self::fields) are known.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .get()?
            .iter()
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A line of a watch stream. The type comes first, so that a reader knows what it decodes.
pub(crate) fn frame(event: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 32);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn entry(label: &str, revision: u64) -> Arc<Entry> {
        let json = format!(r#"{{"metadata":{{"name":"a","labels":{{"x":"{label}"}}}}}}"#);
        Arc::new(Entry::new("/k/a".into(), json.as_bytes(), revision).unwrap())
    }

    fn selects(label: &str) -> impl Fn(&Entry) -> bool {
        move |entry| entry.labels["x"] == label
    }

    #[test]
    fn a_change_is_seen_through_the_selector() {
        let change = Change::put(entry("new", 8), Some(entry("old", 5)));
        assert_eq!(change.seen_by(selects("new")), Some(EventType::Added));
        assert_eq!(change.seen_by(selects("old")), Some(EventType::Deleted));
        assert_eq!(change.seen_by(|_| true), Some(EventType::Modified));
        assert_eq!(change.seen_by(|_| false), None);
    }

    #[test]
    fn who_loses_sight_gets_the_last_seen_state_under_the_new_revision() {
        let change = Change::put(entry("new", 8), Some(entry("old", 5)));
        let frame: Value = serde_json::from_slice(&change.frame(EventType::Deleted)).unwrap();
        assert_eq!(frame["type"], "DELETED");
        assert_eq!(frame["object"]["metadata"]["resourceVersion"], "8");
        assert_eq!(frame["object"]["metadata"]["labels"]["x"], "old");
    }

    #[test]
    fn a_frame_is_made_once() {
        let change = Change::put(entry("a", 8), None);
        assert_eq!(
            change.frame(EventType::Added).as_ptr(),
            change.frame(EventType::Added).as_ptr()
        );
    }
}
