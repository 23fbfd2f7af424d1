//! Events: of the core group, in which they are stored, and of `events.k8s.io`, another view of the same ones.

mod validation;
mod view;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use orch_core::field::ErrorList;
use serde_json::Value;

use self::view::EventVersions;
pub(super) use self::view::NewerEvents;
use super::check::Check;
use super::table::{self, UNKNOWN, number, since, text_column};
use super::text::text;
use crate::apply::Versions;
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

/// The rules of events of the core group.
pub(super) struct Events;

impl Kind for Events {
    type Object = Event;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("", "v1", "Event", "events").short(["ev"])
    }

    fn validate(event: &Event) -> ErrorList {
        Check::run(|check| validation::event(check, event, "reportingComponent"))
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            text_column("Last Seen", "Time since the event happened the last time."),
            text_column("Type", "Normal or Warning."),
            text_column("Reason", "What happened, in a word."),
            text_column("Object", "The object that the event is about."),
            text_column("Subobject", "The part of the object.").wide(),
            text_column("Source", "Who reported the event.").wide(),
            text_column("Message", "What happened, in a sentence."),
            text_column("First Seen", "Time since the event happened the first time.").wide(),
            number("Count", "How often it happened.").wide(),
            Column::new("Name", "string", "name", "The name of the event.").wide(),
        ];
        COLUMNS
    }

    fn cells(event: &Event, now: Timestamp) -> Vec<Value> {
        let (first, last, count) = times(event, now);
        let kind = text(&event.involved_object.kind).to_lowercase();
        let name = text(&event.involved_object.name);
        let object = if name.is_empty() {
            kind
        } else {
            format!("{kind}/{name}")
        };
        vec![
            last.into(),
            text(&event.type_).into(),
            text(&event.reason).into(),
            object.into(),
            text(&event.involved_object.field_path).into(),
            source(event).into(),
            text(&event.message).trim().into(),
            first.into(),
            count.into(),
            table::name(&event.metadata),
        ]
    }

    fn selectable_fields(event: &Event) -> Vec<(&'static str, String)> {
        let object = &event.involved_object;
        let component = event.source.as_ref().map_or("", |source| text(&source.component));
        let reporter = text(&event.reporting_component);
        let source = if component.is_empty() { reporter } else { component };
        [
            ("involvedObject.kind", text(&object.kind)),
            ("involvedObject.namespace", text(&object.namespace)),
            ("involvedObject.name", text(&object.name)),
            ("involvedObject.uid", text(&object.uid)),
            ("involvedObject.apiVersion", text(&object.api_version)),
            ("involvedObject.resourceVersion", text(&object.resource_version)),
            ("involvedObject.fieldPath", text(&object.field_path)),
            ("reason", text(&event.reason)),
            ("reportingComponent", reporter),
            ("source", source),
            ("type", text(&event.type_)),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec()
    }

    fn create_on_update() -> bool {
        true
    }

    fn versions() -> &'static dyn Versions {
        &EventVersions
    }
}

/// Ages of the first and the last occurrence, and how many there were.
fn times(event: &Event, now: Timestamp) -> (String, String, i32) {
    let event_time = event.event_time.as_ref().map(|time| Time(time.0));
    let first = match (&event.first_timestamp, &event_time) {
        (Some(first), _) => since(Some(first), now),
        (None, other) => since(other.as_ref(), now),
    };
    let last = event
        .last_timestamp
        .as_ref()
        .map_or_else(|| first.clone(), |last| since(Some(last), now));
    match &event.series {
        Some(series) => {
            let last = series.last_observed_time.as_ref().map(|time| Time(time.0));
            (first, since(last.as_ref(), now), series.count.unwrap_or(0))
        }
        None => (first, last, event.count.filter(|count| *count != 0).unwrap_or(1)),
    }
}

fn source(event: &Event) -> String {
    let none = EventSource::default();
    let source = event.source.as_ref().unwrap_or(&none);
    let pick = |one: &Option<String>, other: &Option<String>| {
        let one = text(one);
        (if one.is_empty() { text(other) } else { one }).to_owned()
    };
    let component = pick(&source.component, &event.reporting_component);
    let host = pick(&source.host, &event.reporting_instance);
    match (component.as_str(), host.as_str()) {
        ("", "") => UNKNOWN.to_owned(),
        (_, "") => component,
        _ => format!("{component}, {host}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(json: Value) -> Event {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_table_counts_occurrences() {
        let event = event(json!({
            "metadata": {"name": "web.1"},
            "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{web}"},
            "reason": "BackOff", "type": "Warning", "message": "Back-off restarting\n", "count": 3,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:04:00Z",
            "source": {"component": "kubelet", "host": "n1"},
        }));
        let cells = Events::cells(&event, "2026-01-01T00:05:00Z".parse().unwrap());
        assert_eq!(
            Value::from(cells),
            json!([
                "60s",
                "Warning",
                "BackOff",
                "pod/web",
                "spec.containers{web}",
                "kubelet, n1",
                "Back-off restarting",
                "5m",
                3,
                "web.1"
            ])
        );
    }
}
