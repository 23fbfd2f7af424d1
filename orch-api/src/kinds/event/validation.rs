//! Upstream's `ValidateEventCreate` and `ValidateEventUpdate`. Errors name the fields of the core group's version, whatever
//! version the client wrote, but for the reporter.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource};

use super::super::check::{Check, Path};
use super::super::format;
use super::super::text::text;

const MAX_WORD: usize = 128;
const MAX_MESSAGE: usize = 1024;

/// What holds of every event. Events with an `eventTime` are of the newer sort, which has to tell who reported it.
pub(super) fn event(check: &mut Check, event: &Event, reporter: &'static str) {
    let own = text(&event.metadata.namespace);
    let object = text(&event.involved_object.namespace);
    let newer = event.event_time.is_some();
    // Events of cluster-wide objects live in the default namespace.
    let fits = match (newer, object.is_empty()) {
        (false, true) => own.is_empty() || own == "default",
        (false, false) => own == object,
        (true, true) => own == "default" || own == "kube-system",
        (true, false) => true,
    };
    if !fits {
        let path = Path::new("involvedObject").child("namespace");
        check.invalid(&path, object, "does not match event.namespace");
    }
    if newer {
        reported(check, event, reporter);
    }
    check.faults(&Path::new("namespace"), own, format::dns1123_subdomain(own));
}

fn reported(check: &mut Check, event: &Event, reporter: &'static str) {
    let (path, name) = (Path::new(reporter), text(&event.reporting_component));
    check.present(&path, name);
    check.faults(&path, name, format::qualified_name(name));
    for (field, value) in [
        ("reportingInstance", &event.reporting_instance),
        ("action", &event.action),
        ("reason", &event.reason),
    ] {
        let (path, value) = (Path::new(field), text(value));
        check.present(&path, value);
        at_most(check, &path, value, MAX_WORD);
    }
    at_most(check, &Path::new("message"), text(&event.message), MAX_MESSAGE);
}

fn at_most(check: &mut Check, path: &Path, value: &str, max: usize) {
    if value.len() > max {
        check.invalid(path, "", format!("can have at most {max} characters"));
    }
}

/// What holds of new events of `events.k8s.io` besides.
pub(super) fn newer(check: &mut Check, event: &Event) {
    series(check, event);
    if event.event_time.is_none() {
        check.required(&Path::new("eventTime"), "");
    }
    let kind = text(&event.type_);
    if !matches!(kind, "Normal" | "Warning") {
        check.invalid(&Path::new("type"), "", format!("has invalid value: {kind}"));
    }
    let none = EventSource::default();
    let source = event.source.as_ref().unwrap_or(&none);
    for (field, set) in [
        ("firstTimestamp", event.first_timestamp.is_some()),
        ("lastTimestamp", event.last_timestamp.is_some()),
        ("count", event.count.is_some_and(|count| count != 0)),
        (
            "source",
            !text(&source.component).is_empty() || !text(&source.host).is_empty(),
        ),
    ] {
        if set {
            check.invalid(&Path::new(field), "", "needs to be unset");
        }
    }
}

fn series(check: &mut Check, event: &Event) {
    let Some(series) = &event.series else { return };
    if series.count.unwrap_or(0) < 2 {
        check.invalid(&Path::new("series.count"), "", "should be at least 2");
    }
    if series.last_observed_time.is_none() {
        check.required(&Path::new("series.lastObservedTime"), "");
    }
}

/// What an update through `events.k8s.io` may not change: everything but the series and the metadata.
pub(super) fn newer_update(check: &mut Check, new: &Event, old: &Event) {
    series(check, new);
    let path = Path::new;
    check.immutable(
        &path("involvedObject"),
        &new.involved_object,
        &old.involved_object,
    );
    check.immutable(&path("reason"), &text(&new.reason), &text(&old.reason));
    check.immutable(&path("message"), &text(&new.message), &text(&old.message));
    let source = |event: &Event| event.source.clone().unwrap_or_default();
    check.immutable(&path("source"), &source(new), &source(old));
    check.immutable(
        &path("firstTimestamp"),
        &new.first_timestamp,
        &old.first_timestamp,
    );
    check.immutable(&path("lastTimestamp"), &new.last_timestamp, &old.last_timestamp);
    check.immutable(&path("count"), &new.count.unwrap_or(0), &old.count.unwrap_or(0));
    check.immutable(&path("type"), &text(&new.type_), &text(&old.type_));
    // What is finer than a microsecond is not stored.
    let time = |event: &Event| event.event_time.as_ref().map(|time| time.0);
    if time(new).map(Timestamp::as_microsecond) != time(old).map(Timestamp::as_microsecond) {
        check.invalid(&path("eventTime"), &new.event_time, format::IMMUTABLE);
    }
    check.immutable(&path("action"), &text(&new.action), &text(&old.action));
    check.immutable(&path("related"), &new.related, &old.related);
    check.immutable(
        &path("reportingController"),
        &text(&new.reporting_component),
        &text(&old.reporting_component),
    );
    check.immutable(
        &path("reportingInstance"),
        &text(&new.reporting_instance),
        &text(&old.reporting_instance),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(json: Value) -> Event {
        serde_json::from_value(json).unwrap()
    }

    fn complaints(rules: impl FnOnce(&mut Check)) -> Vec<String> {
        Check::run(rules).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_event_lives_where_its_object_does() {
        for (own, object, time, fits) in [
            ("a", "a", false, true),
            ("a", "b", false, false),
            ("default", "", false, true),
            ("a", "", false, false),
            ("a", "b", true, true),
            ("kube-system", "", true, true),
            ("a", "", true, false),
        ] {
            let mut object = json!({
                "metadata": {"namespace": own}, "involvedObject": {"namespace": object},
                "reportingComponent": "c", "reportingInstance": "i", "action": "a", "reason": "r",
            });
            if time {
                object["eventTime"] = json!("2026-01-01T00:00:00.000000Z");
            }
            let found = complaints(|check| event(check, &read(object.clone()), "reportingComponent"));
            assert_eq!(found.is_empty(), fits, "{object} {found:?}");
        }
    }

    #[test]
    fn a_newer_event_tells_who_reported_it() {
        let sent = read(json!({
            "metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}, "reason": "r".repeat(129),
            "eventTime": "2026-01-01T00:00:00.000000Z",
        }));
        let found = complaints(|check| event(check, &sent, "reportingController"));
        assert_eq!(found[0], "reportingController: Required value");
        assert!(found.contains(&"action: Required value".to_owned()), "{found:?}");
        assert!(
            found.contains(&r#"reason: Invalid value: "": can have at most 128 characters"#.to_owned()),
            "{found:?}"
        );
    }

    #[test]
    fn the_older_fields_are_not_for_newer_events() {
        let sent = read(json!({"metadata": {}, "involvedObject": {}, "count": 2, "series": {"count": 1}}));
        assert_eq!(
            complaints(|check| newer(check, &sent)),
            [
                r#"series.count: Invalid value: "": should be at least 2"#,
                "series.lastObservedTime: Required value",
                "eventTime: Required value",
                r#"type: Invalid value: "": has invalid value: "#,
                r#"count: Invalid value: "": needs to be unset"#,
            ]
        );
    }

    #[test]
    fn only_the_series_of_a_newer_event_changes() {
        let event = |note: &str, count: i32| {
            read(json!({
                "metadata": {}, "involvedObject": {}, "message": note,
                "series": {"count": count, "lastObservedTime": "2026-01-01T00:00:00.000000Z"},
            }))
        };
        assert!(complaints(|check| newer_update(check, &event("a", 3), &event("a", 2))).is_empty());
        assert_eq!(
            complaints(|check| newer_update(check, &event("b", 2), &event("a", 2))),
            [r#"message: Invalid value: "b": field is immutable"#]
        );
    }
}
