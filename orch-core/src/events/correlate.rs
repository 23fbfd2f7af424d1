//! Which events are repeats, which are combined, and which are too many. Pure: the sink does the writing.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;

use super::{EventType, Note};

/// More than this many events that differ only in their message are combined.
const SIMILAR_MAX: usize = 10;
/// Within this time.
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// An object may have this many events at once,
const BURST: f64 = 25.0;
/// and one each so many seconds after that.
const REFILL_SECONDS: f64 = 300.0;
/// How much is remembered. What was forgotten is written as a new Event.
const MEMORY: usize = 4096;

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Write {
    /// A new Event.
    Create(Entry),
    /// One more of an Event that was written.
    Repeat(Entry),
}

/// An Event as it is to stand in the API.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) name: String,
    pub(super) message: String,
    pub(super) count: i32,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

/// What two events have in common to be one that repeats.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    similar: Similar,
    /// The message, unless events are combined.
    message: Option<String>,
}

/// What two events have in common to be alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Similar {
    object: (Option<String>, Option<String>, Option<String>, Option<String>),
    field_path: Option<String>,
    type_: EventType,
    reason: String,
}

#[derive(Default)]
pub(super) struct Correlator {
    known: HashMap<Key, Entry>,
    messages: HashMap<Similar, (Timestamp, Vec<String>)>,
    /// By kind, namespace and name.
    allowance: HashMap<[Option<String>; 3], (Timestamp, f64)>,
}

impl Correlator {
    /// What to write for `note`; nothing if its object has too many.
    pub(super) fn observe(&mut self, note: &Note) -> Option<Write> {
        if !self.allow(note) {
            return None;
        }
        let similar = Similar::of(note);
        let combined = self.is_combined(&similar, note);
        let key = Key {
            similar,
            message: (!combined).then(|| note.message.clone()),
        };
        let message = match combined {
            true => format!("(combined from similar events): {}", note.message),
            false => note.message.clone(),
        };
        if let Some(entry) = self.known.get(&key) {
            let repeat = Entry {
                message,
                count: entry.count.saturating_add(1),
                last: note.at,
                ..entry.clone()
            };
            return Some(Write::Repeat(repeat));
        }
        Some(Write::Create(Entry {
            name: event_name(&note.about, note.at),
            key,
            message,
            count: 1,
            first: note.at,
            last: note.at,
        }))
    }

    /// Remembers what was written.
    pub(super) fn written(&mut self, entry: Entry) {
        if self.known.len() >= MEMORY {
            forget_half(&mut self.known, |entry| entry.last);
        }
        self.known.insert(entry.key.clone(), entry);
    }

    fn is_combined(&mut self, similar: &Similar, note: &Note) -> bool {
        if self.messages.len() >= MEMORY {
            forget_half(&mut self.messages, |(at, _)| *at);
        }
        let (at, messages) = self
            .messages
            .entry(similar.clone())
            .or_insert((note.at, Vec::new()));
        if seconds_between(*at, note.at) > SIMILAR_WINDOW.as_secs_f64() {
            messages.clear();
        }
        *at = note.at;
        if messages.len() < SIMILAR_MAX && !messages.contains(&note.message) {
            messages.push(note.message.clone());
        }
        messages.len() >= SIMILAR_MAX
    }

    fn allow(&mut self, note: &Note) -> bool {
        if self.allowance.len() >= MEMORY {
            forget_half(&mut self.allowance, |(at, _)| *at);
        }
        let about = &note.about;
        let key = [about.kind.clone(), about.namespace.clone(), about.name.clone()];
        let (at, left) = self.allowance.entry(key).or_insert((note.at, BURST));
        *left = (*left + seconds_between(*at, note.at) / REFILL_SECONDS).min(BURST);
        *at = note.at;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

impl Similar {
    fn of(note: &Note) -> Self {
        let about = &note.about;
        Similar {
            object: (
                about.kind.clone(),
                about.namespace.clone(),
                about.name.clone(),
                about.uid.clone(),
            ),
            field_path: about.field_path.clone(),
            type_: note.type_,
            reason: note.reason.clone(),
        }
    }
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

/// Keeps the newer half.
fn forget_half<K: Clone + Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>, at: impl Fn(&V) -> Timestamp) {
    let mut times: Vec<_> = map.values().map(&at).collect();
    times.sort_unstable();
    let Some(&median) = times.get(times.len() / 2) else {
        return;
    };
    map.retain(|_, value| at(value) > median);
}

/// Upstream's name of an event: the object's and the time.
fn event_name(about: &ObjectReference, at: Timestamp) -> String {
    format!(
        "{}.{:x}",
        about.name.as_deref().unwrap_or_default(),
        at.as_nanosecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(second: i64, message: &str) -> Note {
        Note {
            about: ObjectReference {
                kind: Some("Pod".into()),
                namespace: Some("default".into()),
                name: Some("web".into()),
                uid: Some("u".into()),
                ..ObjectReference::default()
            },
            type_: EventType::Normal,
            reason: "Pulled".into(),
            message: message.into(),
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    fn written(correlator: &mut Correlator, note: &Note) -> Entry {
        let entry = match correlator.observe(note).unwrap() {
            Write::Create(entry) | Write::Repeat(entry) => entry,
        };
        correlator.written(entry.clone());
        entry
    }

    #[test]
    fn the_same_event_again_raises_the_count() {
        let mut correlator = Correlator::default();
        let first = written(&mut correlator, &note(1, "a"));
        let again = written(&mut correlator, &note(5, "a"));
        assert_eq!((again.count, &again.name), (2, &first.name));
        assert_eq!((again.first, again.last), (first.first, note(5, "").at));
        let other = written(&mut correlator, &note(6, "b"));
        assert_eq!(other.count, 1);
    }

    #[test]
    fn what_was_not_written_is_not_repeated() {
        let mut correlator = Correlator::default();
        assert!(matches!(
            correlator.observe(&note(1, "a")),
            Some(Write::Create(_))
        ));
        assert!(matches!(
            correlator.observe(&note(2, "a")),
            Some(Write::Create(_))
        ));
    }

    #[test]
    fn many_that_differ_only_in_the_message_are_combined() {
        let mut correlator = Correlator::default();
        for i in 0..9 {
            assert!(
                !written(&mut correlator, &note(i, &i.to_string()))
                    .message
                    .contains("combined")
            );
        }
        let tenth = written(&mut correlator, &note(10, "tenth"));
        assert_eq!(tenth.message, "(combined from similar events): tenth");
        let more = written(&mut correlator, &note(11, "more"));
        assert_eq!((more.count, more.name), (2, tenth.name));
        let later = written(&mut correlator, &note(2000, "later"));
        assert_eq!(later.message, "later");
    }

    #[test]
    fn one_object_cannot_flood() {
        let mut correlator = Correlator::default();
        let passed = (0..100)
            .filter(|_| correlator.observe(&note(1, "a")).is_some())
            .count();
        assert_eq!(passed, 25);
        assert!(correlator.observe(&note(302, "a")).is_some());
        assert!(correlator.observe(&note(303, "a")).is_none());
    }
}
