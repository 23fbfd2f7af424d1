//! Writing events.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Note;
use super::correlate::{Correlator, Entry, Write};

/// Time to write what still waits when the program stops.
const LAST_WORDS: Duration = Duration::from_secs(2);
const TRIES: u32 = 12;

/// Writes the events that an [`EventRecorder`](super::EventRecorder) takes.
pub struct EventSink {
    client: Client,
    component: String,
    host: String,
    notes: mpsc::Receiver<Note>,
    correlator: Correlator,
}

impl fmt::Debug for EventSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSink")
            .field("component", &self.component)
            .field("waiting", &self.notes.len())
            .finish_non_exhaustive()
    }
}

impl EventSink {
    pub(super) fn new(client: Client, component: &str, host: &str, notes: mpsc::Receiver<Note>) -> Self {
        EventSink {
            client,
            component: component.to_owned(),
            host: host.to_owned(),
            notes,
            correlator: Correlator::default(),
        }
    }

    /// Writes events until `shutdown`, then, for a moment, those that still wait.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let out_of_time = async {
            shutdown.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = self.write_all(&shutdown) => {}
            () = out_of_time => tracing::debug!("no time to write the last events"),
        }
    }

    /// Ends when nothing waits and nothing more can come.
    async fn write_all(&mut self, shutdown: &CancellationToken) {
        loop {
            let note = tokio::select! {
                biased;
                note = self.notes.recv() => note,
                () = shutdown.cancelled(), if !self.notes.is_closed() => {
                    self.notes.close();
                    continue;
                }
            };
            let Some(note) = note else { return };
            self.write(&note).await;
        }
    }

    async fn write(&mut self, note: &Note) {
        let Some(mut write) = self.correlator.observe(note) else {
            return;
        };
        let namespace = note.about.namespace.as_deref().unwrap_or("default");
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        for attempt in 0..TRIES {
            let result = match &write {
                Write::Create(entry) => {
                    let event = self.event(note, entry, namespace);
                    events.create(&PostParams::default(), &event).await
                }
                Write::Repeat(entry) => {
                    let patch = Patch::Strategic(repeat(entry));
                    events.patch(&entry.name, &PatchParams::default(), &patch).await
                }
            };
            match (result, &write) {
                (Ok(_), Write::Create(entry) | Write::Repeat(entry)) => {
                    return self.correlator.written(entry.clone());
                }
                // It expired meanwhile: begin again with the count it has.
                (Err(kube::Error::Api(status)), Write::Repeat(entry)) if status.code == 404 => {
                    write = Write::Create(entry.clone());
                }
                (Err(kube::Error::Api(status)), _) if status.code < 500 && status.code != 429 => {
                    return tracing::debug!(reason = note.reason, error = %status, "event refused");
                }
                (Err(error), _) => {
                    tracing::debug!(reason = note.reason, attempt, %error, "cannot write an event");
                    tokio::time::sleep(Duration::from_millis(250 << attempt.min(5))).await;
                }
            }
        }
    }

    fn event(&self, note: &Note, entry: &Entry, namespace: &str) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(entry.name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: note.about.clone(),
            type_: Some(note.type_.as_str().to_owned()),
            reason: Some(note.reason.clone()),
            message: Some(entry.message.clone()),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: (!self.host.is_empty()).then(|| self.host.clone()),
            }),
            first_timestamp: Some(Time(entry.first)),
            last_timestamp: Some(Time(entry.last)),
            count: Some(entry.count),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        }
    }
}

fn repeat(entry: &Entry) -> serde_json::Value {
    serde_json::json!({
        "count": entry.count,
        "lastTimestamp": Time(entry.last),
        "message": entry.message,
    })
}
