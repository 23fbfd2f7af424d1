//! Cells of tables as kubectl prints them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::Value;

use super::text::text;
use crate::strategy::Column;

/// The first column of nearly every table.
pub(crate) const NAME: Column = Column::new("Name", "string", "name", "The name of the object.");
/// How long the object has existed.
pub(crate) const AGE: Column = Column::new("Age", "string", "", "Time since the object was created.");
/// The containers of a workload's template.
pub(crate) const CONTAINERS: Column = Column::new(
    "Containers",
    "string",
    "",
    "Names of the containers in the template.",
)
.wide();
/// The images of a workload's template.
pub(crate) const IMAGES: Column = Column::new(
    "Images",
    "string",
    "",
    "Images of the containers in the template.",
)
.wide();
/// The selector of a workload.
pub(crate) const SELECTOR: Column =
    Column::new("Selector", "string", "", "Which pods belong to the object.").wide();

/// A column of text.
pub(crate) const fn text_column(name: &'static str, description: &'static str) -> Column {
    Column::new(name, "string", "", description)
}

/// A column of whole numbers.
pub(crate) const fn number(name: &'static str, description: &'static str) -> Column {
    Column::new(name, "integer", "", description)
}

/// What stands for nothing.
pub(crate) const NONE: &str = "<none>";
/// What stands for something that was not told.
pub(crate) const UNKNOWN: &str = "<unknown>";
/// What stands for something not set.
pub(crate) const UNSET: &str = "<unset>";

pub(crate) fn name(meta: &ObjectMeta) -> Value {
    text(&meta.name).into()
}

pub(crate) fn age(meta: &ObjectMeta, now: Timestamp) -> Value {
    since(meta.creation_timestamp.as_ref(), now).into()
}

/// The time since an event in one or two units, `<unknown>` when it has no time.
pub(crate) fn since(time: Option<&Time>, now: Timestamp) -> String {
    match time {
        None => UNKNOWN.to_owned(),
        Some(time) => duration(now.as_second() - time.0.as_second()),
    }
}

/// A text, or `<none>` for an empty one.
pub(crate) fn or_none(value: &str) -> String {
    if value.is_empty() {
        NONE.to_owned()
    } else {
        value.to_owned()
    }
}

/// A span of seconds as kubectl shows it: exact when short, coarser the longer it is.
pub(crate) fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 365 * 8 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// Names and images of the containers of a template.
pub(crate) fn containers(template: Option<&core::PodTemplateSpec>) -> (Value, Value) {
    let containers = template
        .and_then(|template| template.spec.as_ref())
        .map_or(&[][..], |spec| &spec.containers);
    let join = |texts: Vec<&str>| Value::from(texts.join(","));
    (
        join(containers.iter().map(|one| one.name.as_str()).collect()),
        join(containers.iter().map(|one| text(&one.image)).collect()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_grow_coarser() {
        for (seconds, shown) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (600, "10m"),
            (3600 * 3 - 1, "179m"),
            (3600 * 3, "3h"),
            (3600 * 7 + 120, "7h2m"),
            (3600 * 8 + 120, "8h"),
            (86_400 * 2 - 1, "47h"),
            (86_400 * 2, "2d"),
            (86_400 * 3 + 3600 * 4, "3d4h"),
            (86_400 * 9, "9d"),
            (86_400 * 729, "729d"),
            (86_400 * 731, "2y1d"),
            (86_400 * 365 * 9, "9y"),
        ] {
            assert_eq!(duration(seconds), shown, "{seconds}");
        }
    }
}
