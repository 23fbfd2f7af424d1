use bytes::Bytes;

use crate::Revision;

/// One key as it stood at one revision. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// When the key last came into being; a key that was deleted and created again starts anew.
    pub create_revision: Revision,
    /// When the key was last written. Guards of later writes name this.
    pub mod_revision: Revision,
    /// How often the key was written since it was created; 1 after the creation.
    pub version: u64,
}

/// What an [`Event`] did to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The key was created or got a new value.
    Put,
    /// The key was deleted, or its time to live ended.
    Delete,
}

/// One write, as watchers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key after the write. For a [`EventKind::Delete`] the value is empty, `mod_revision` is the
    /// revision of the deletion, and `create_revision` and `version` are those of the life that ended.
    pub kv: KeyValue,
    /// The key before the write: `None` for a creation, always present otherwise.
    pub previous: Option<KeyValue>,
}

impl Event {
    /// The revision of the write.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.kv.mod_revision
    }

    /// The key that was written.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.kv.key
    }

    /// Whether the key came into being with this write.
    #[must_use]
    pub fn is_create(&self) -> bool {
        self.kind == EventKind::Put && self.previous.is_none()
    }
}
