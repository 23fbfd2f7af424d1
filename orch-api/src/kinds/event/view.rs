//! Events of `events.k8s.io`: those of the core group under newer names.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::events::v1::Event;
use orch_core::field::ErrorList;
use serde_json::Value;

use super::super::check::Check;
use super::{Events, validation};
use crate::apply::Versions;
use crate::resource::ResourceInfo;
use crate::schema::{self, TypeRef};
use crate::strategy::{Column, Kind};

const GROUP: &str = "events.k8s.io";
const NEWER: &str = "events.k8s.io/v1";
const STORED: &str = "v1";

/// The fields that are called differently: in the core group, in `events.k8s.io`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// The two versions of events.
pub(super) struct EventVersions;

impl Versions for EventVersions {
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, TypeRef)> {
        let group = match api_version {
            STORED => "",
            NEWER => GROUP,
            _ => return None,
        };
        let ty = schema::builtin_root(group, "v1", "Event")?;
        Some((renamed(object, api_version)?, TypeRef::Static(ty)))
    }

    fn convert_back(&self, object: &Value, from: &str) -> Option<Value> {
        match from {
            STORED => renamed(object, NEWER),
            NEWER => renamed(object, STORED),
            _ => None,
        }
    }
}

fn renamed(object: &Value, to: &str) -> Option<Value> {
    let fields = object.as_object()?.iter().map(|(name, value)| {
        let pair = NAMES
            .iter()
            .find(|(old, new)| [old, new].contains(&&name.as_str()));
        match pair {
            Some((old, new)) => {
                let name = if to == STORED { old } else { new };
                ((*name).to_owned(), value.clone())
            }
            None if name == "apiVersion" => (name.clone(), to.into()),
            None => (name.clone(), value.clone()),
        }
    });
    Some(Value::Object(fields.collect()))
}

/// The same event in the core group's version.
fn stored(event: &Event) -> core::Event {
    let event = event.clone();
    core::Event {
        action: event.action,
        count: event.deprecated_count,
        event_time: event.event_time,
        first_timestamp: event.deprecated_first_timestamp,
        involved_object: event.regarding.unwrap_or_default(),
        last_timestamp: event.deprecated_last_timestamp,
        message: event.note,
        metadata: event.metadata,
        reason: event.reason,
        related: event.related,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
        series: event.series.map(|series| core::EventSeries {
            count: Some(series.count),
            last_observed_time: Some(series.last_observed_time),
        }),
        source: event.deprecated_source,
        type_: event.type_,
    }
}

/// The rules of events of `events.k8s.io`.
pub(in super::super) struct NewerEvents;

impl Kind for NewerEvents {
    type Object = Event;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced(GROUP, "v1", "Event", "events").short(["ev"])
    }

    fn validate(event: &Event) -> ErrorList {
        let event = stored(event);
        Check::run(|check| {
            validation::event(check, &event, "reportingController");
            validation::newer(check, &event);
        })
    }

    fn validate_update(new: &Event, old: &Event) -> ErrorList {
        let (new, old) = (stored(new), stored(old));
        Check::run(|check| {
            validation::event(check, &new, "reportingController");
            validation::newer_update(check, &new, &old);
        })
    }

    fn columns() -> &'static [Column] {
        Events::columns()
    }

    fn cells(event: &Event, now: Timestamp) -> Vec<Value> {
        Events::cells(&stored(event), now)
    }

    fn selectable_fields(event: &Event) -> Vec<(&'static str, String)> {
        let newer = |name: &'static str| match name {
            "involvedObject.kind" => Some("regarding.kind"),
            "involvedObject.namespace" => Some("regarding.namespace"),
            "involvedObject.name" => Some("regarding.name"),
            "involvedObject.uid" => Some("regarding.uid"),
            "involvedObject.apiVersion" => Some("regarding.apiVersion"),
            "involvedObject.resourceVersion" => Some("regarding.resourceVersion"),
            "involvedObject.fieldPath" => Some("regarding.fieldPath"),
            "reportingComponent" => Some("reportingController"),
            "reason" | "type" => Some(name),
            _ => None,
        };
        Events::selectable_fields(&stored(event))
            .into_iter()
            .filter_map(|(name, value)| Some((newer(name)?, value)))
            .collect()
    }

    fn create_on_update() -> bool {
        Events::create_on_update()
    }

    fn versions() -> &'static dyn Versions {
        &EventVersions
    }

    fn storage_version() -> Option<&'static str> {
        Some(STORED)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn full() -> Value {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "web.1", "namespace": "a"},
            "action": "Pulling", "reason": "Pulled", "note": "a sentence", "type": "Normal",
            "eventTime": "2026-01-01T00:00:00.123456Z", "reportingController": "orch.example/c",
            "reportingInstance": "c-1", "regarding": {"kind": "Pod", "name": "web"}, "related": {"kind": "Node"},
            "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:05.000000Z"},
            "deprecatedSource": {"component": "c", "host": "h"}, "deprecatedCount": 3,
            "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z", "deprecatedLastTimestamp": "2026-01-01T00:00:01Z",
        })
    }

    #[test]
    fn an_event_survives_the_way_to_the_other_version_and_back() {
        let (older, _) = EventVersions.convert(&full(), STORED).unwrap();
        assert_eq!(older["apiVersion"], "v1");
        assert_eq!(older["message"], "a sentence");
        assert_eq!(EventVersions.convert_back(&older, STORED).unwrap(), full());
        assert!(EventVersions.convert(&full(), "events.k8s.io/v1beta1").is_none());
    }

    #[test]
    fn names_and_types_say_the_same_about_the_versions() {
        let (older, _) = EventVersions.convert(&full(), STORED).unwrap();
        let typed = stored(&serde_json::from_value(full()).unwrap());
        assert_eq!(serde_json::to_value(typed).unwrap(), older);
    }
}
