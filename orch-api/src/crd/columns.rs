//! The table of a custom resource: its name, then what its definition asks for.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;
use serde_json::Value;

use super::json_path::JsonPath;
use crate::kinds::duration;
use crate::strategy::Column;

/// The columns of one version, and where their cells come from.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) shown: Vec<Column>,
    paths: Vec<(Sort, Option<JsonPath>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Text,
    Integer,
    Number,
    Boolean,
    Date,
}

impl Columns {
    pub(crate) fn new(definitions: &[CustomResourceColumnDefinition]) -> Self {
        let age = [CustomResourceColumnDefinition {
            name: "Age".into(),
            type_: "date".into(),
            json_path: ".metadata.creationTimestamp".into(),
            description: Some("Time since the object was created.".into()),
            ..CustomResourceColumnDefinition::default()
        }];
        let definitions = if definitions.is_empty() { &age } else { definitions };
        let name = Column::new("Name", "string", "name", "The name of the object.");
        Self {
            shown: std::iter::once(name)
                .chain(definitions.iter().map(column))
                .collect(),
            paths: definitions
                .iter()
                .map(|one| (sort(&one.type_), JsonPath::parse(&one.json_path).ok()))
                .collect(),
        }
    }

    /// The cells of one object.
    pub(crate) fn cells(&self, name: &str, object: &Value, now: Timestamp) -> Vec<Value> {
        let cell = |(sort, path): &(Sort, Option<JsonPath>)| {
            let found = path.as_ref().and_then(|path| path.first(object));
            found.map_or(Value::Null, |value| cell(*sort, value, now))
        };
        std::iter::once(Value::from(name))
            .chain(self.paths.iter().map(cell))
            .collect()
    }
}

fn column(from: &CustomResourceColumnDefinition) -> Column {
    let text = |text: &Option<String>| -> Cow<'static, str> { Cow::Owned(text.clone().unwrap_or_default()) };
    let description = match text(&from.description) {
        empty if empty.is_empty() => Cow::Owned(format!(
            "Custom resource definition column (in JSONPath format): {}",
            from.json_path
        )),
        given => given,
    };
    Column {
        name: Cow::Owned(from.name.clone()),
        kind: Cow::Owned(from.type_.clone()),
        format: text(&from.format),
        description,
        priority: from.priority.unwrap_or(0),
    }
}

fn sort(name: &str) -> Sort {
    match name {
        "integer" => Sort::Integer,
        "number" => Sort::Number,
        "boolean" => Sort::Boolean,
        "date" => Sort::Date,
        _ => Sort::Text,
    }
}

/// A value as a cell of its column's type; null when it is of another.
fn cell(sort: Sort, value: &Value, now: Timestamp) -> Value {
    match (sort, value) {
        (Sort::Text, Value::String(_) | Value::Null) => value.clone(),
        (Sort::Text, other) => Value::from(other.to_string()),
        (Sort::Integer, Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            #[allow(
                clippy::cast_possible_truncation,
                reason = "as upstream, a fraction is cut off"
            )]
            (None, Some(number)) => (number as i64).into(),
            (None, None) => Value::Null,
        },
        (Sort::Number, Value::Number(_)) | (Sort::Boolean, Value::Bool(_)) => value.clone(),
        (Sort::Date, Value::String(time)) => match time.parse::<Timestamp>() {
            Ok(time) => duration(now.as_second() - time.as_second()).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn columns(columns: Value) -> Columns {
        Columns::new(&serde_json::from_value::<Vec<_>>(columns).unwrap())
    }

    #[test]
    fn cells_are_of_their_columns_types() {
        let columns = columns(json!([
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Ready", "type": "boolean", "jsonPath": ".status.ready", "priority": 1},
            {"name": "What", "type": "string", "jsonPath": ".spec.list"},
            {"name": "Odd", "type": "integer", "jsonPath": ".spec.list"},
            {"name": "Since", "type": "date", "jsonPath": ".status.since"},
        ]));
        let object = json!({"spec": {"size": 3.7, "list": [1]}, "status": {"ready": true, "since": "1970-01-01T00:00:00Z"}});
        let now = Timestamp::from_second(90).unwrap();
        assert_eq!(
            columns.cells("a", &object, now),
            [
                json!("a"),
                json!(3),
                json!(true),
                json!("[1]"),
                json!(null),
                json!("90s")
            ]
        );
        assert_eq!(columns.shown[2].priority, 1);
    }

    #[test]
    fn without_columns_there_is_the_age() {
        let columns = columns(json!([]));
        let names: Vec<&str> = columns.shown.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["Name", "Age"]);
    }
}
