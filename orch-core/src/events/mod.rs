//! Recording events: the `core/v1` Events that `kubectl describe` shows.
//!
//! [`EventRecorder::event`] never waits: it puts a note into a bounded queue, and drops it when that is full. The
//! [`EventSink`] behind it writes Events, and counts repeats into the one that is there instead of writing another, as
//! client-go's recorder does: the same event again within an hour or so raises its `count`; more than ten that differ
//! only in their message within ten minutes are combined; one object may have 25 at once and then one each five
//! minutes.
//!
//! ```no_run
//! use k8s_openapi::api::core::v1::Pod;
//! use orch_core::events::{self, EventType};
//! # async fn example(client: kube::Client, pod: &Pod, shutdown: tokio_util::sync::CancellationToken) {
//! let (recorder, sink) = events::recorder(client, "my-controller", "host-1");
//! recorder.event(&events::reference(pod), EventType::Normal, "Greeted", "said hello");
//! sink.run(shutdown).await;
//! # }
//! ```

mod correlate;
mod sink;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, Resource};
use tokio::sync::mpsc;

pub use sink::EventSink;

/// How many events may wait to be written.
const QUEUE: usize = 1000;

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something happened as it should.
    Normal,
    /// Something wants attention.
    Warning,
}

impl EventType {
    /// The text in `Event.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// An event to be written.
#[derive(Clone, Debug)]
struct Note {
    about: ObjectReference,
    type_: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Takes events, at once and from anywhere. Clones share one queue.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    notes: mpsc::Sender<Note>,
    dropped: Arc<AtomicU64>,
}

/// A recorder for events of `component` on `host`, and the sink that writes them, which must be run.
pub fn recorder(client: Client, component: &str, host: &str) -> (EventRecorder, EventSink) {
    let (notes, receiver) = mpsc::channel(QUEUE);
    let recorder = EventRecorder {
        notes,
        dropped: Arc::default(),
    };
    (recorder, EventSink::new(client, component, host, receiver))
}

impl EventRecorder {
    /// Records that `reason` happened to the object `about`; `message` is for people.
    pub fn event(&self, about: &ObjectReference, type_: EventType, reason: &str, message: impl Into<String>) {
        let note = Note {
            about: about.clone(),
            type_,
            reason: reason.to_owned(),
            message: message.into(),
            at: Timestamp::now(),
        };
        if self.notes.try_send(note).is_err() {
            let before = self.dropped.fetch_add(1, Ordering::Relaxed);
            if before == 0 {
                tracing::warn!("events come faster than they can be written: dropping some");
            }
        }
    }

    /// A recorder whose events nobody reads, for tests and for programs that want none.
    pub fn discarding() -> Self {
        let (notes, _) = mpsc::channel(1);
        EventRecorder {
            notes,
            // Not zero: no warning.
            dropped: Arc::new(AtomicU64::new(1)),
        }
    }

    /// How many events found the queue full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The reference by which an event names `object`.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}
