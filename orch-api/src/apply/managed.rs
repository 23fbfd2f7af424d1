//! `metadata.managedFields`: reading, writing, validating.

use std::collections::BTreeMap;

use jiff::Timestamp;
use orch_core::field::{ErrorList, FieldError, Path};
use serde_json::{Map, Value, json};

use super::fields::FieldSet;

/// How many entries of operation Update an object keeps.
pub(super) const MAX_UPDATE_MANAGERS: usize = 10;

const ANCIENT_CHANGES: &str = "ancient-changes";
const MAX_SUBRESOURCE_LENGTH: usize = 256;
const MAX_MANAGER_LENGTH: usize = 128;

/// What tells the entries of `managedFields` apart. Appliers keep their entry when they move to another API version,
/// so theirs has none here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManagerId {
    /// The name which the client gave, or the start of its User-Agent.
    pub manager: String,
    /// Whether the entry comes from applying.
    pub applied: bool,
    /// The API version of the writes; empty for an applier.
    pub api_version: String,
    /// The subresource written through, empty for the object itself.
    pub subresource: String,
}

impl ManagerId {
    /// As conflicts name it.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applied {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) fields: FieldSet,
    /// The API version which the fields are of.
    pub(super) api_version: String,
    pub(super) time: Option<String>,
}

/// All entries of an object's `managedFields`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Managers(pub(super) BTreeMap<ManagerId, Owned>);

impl Managers {
    /// Reads the field's value. Absent and null are no entries.
    pub(super) fn read(entries: Option<&Value>) -> Result<Self, String> {
        let entries = match entries {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err("managedFields must be a list".to_owned()),
        };
        let mut managers = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let (id, owned) = read_entry(entry, index)?;
            managers.insert(id, owned);
        }
        Ok(Self(managers))
    }

    /// Writes the field's value, in upstream's order.
    pub(super) fn write(&self) -> Value {
        let mut entries: Vec<(&ManagerId, &Owned)> = self.0.iter().collect();
        entries.sort_by(|(a, x), (b, y)| {
            let key = |id: &ManagerId, owned: &Owned| (!id.applied, seconds(owned.time.as_deref()));
            key(a, x).cmp(&key(b, y)).then_with(|| {
                (&a.manager, &x.api_version, &a.subresource).cmp(&(
                    &b.manager,
                    &y.api_version,
                    &b.subresource,
                ))
            })
        });
        entries
            .into_iter()
            .map(|(id, owned)| write_entry(id, owned))
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Folds the oldest entries of operation Update together, one entry for each API version, until few enough are
    /// left.
    pub(super) fn cap_updates(&mut self) {
        let mut updaters: Vec<ManagerId> = self.0.keys().filter(|id| !id.applied).cloned().collect();
        let mut count = updaters.len();
        updaters.sort_by_key(|id| seconds(self.0.get(id).and_then(|owned| owned.time.as_deref())));
        let mut first_of: BTreeMap<String, ManagerId> = BTreeMap::new();
        for id in updaters {
            if count <= MAX_UPDATE_MANAGERS {
                return;
            }
            let Some(version) = self.0.get(&id).map(|owned| owned.api_version.clone()) else {
                continue;
            };
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, id);
                continue;
            };
            let bucket = ManagerId {
                manager: ANCIENT_CHANGES.to_owned(),
                applied: false,
                api_version: version,
                subresource: String::new(),
            };
            if !self.0.contains_key(&bucket)
                && let Some(owned) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), owned);
            }
            if id != bucket
                && let Some(owned) = self.0.remove(&id)
                && let Some(place) = self.0.get_mut(&bucket)
            {
                place.fields.extend(&owned.fields);
                place.time = owned.time;
                count -= 1;
            }
        }
    }
}

fn seconds(time: Option<&str>) -> i64 {
    time.and_then(|time| time.parse::<Timestamp>().ok())
        .map_or(0, Timestamp::as_second)
}

/// A time as `managedFields` has it.
pub(super) fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn read_entry(entry: &Value, index: usize) -> Result<(ManagerId, Owned), String> {
    let text = |name: &str| {
        entry
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let applied = match text("operation").as_str() {
        "Apply" => true,
        "Update" => false,
        _ => return Err("operation must be `Apply` or `Update`".to_owned()),
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() {
        return Err("apiVersion must not be empty".to_owned());
    }
    match text("fieldsType").as_str() {
        "FieldsV1" => {}
        "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
        other => {
            return Err(format!(
                "invalid fieldsType {other:?} in managed fields entry {index}"
            ));
        }
    }
    let fields = match entry.get("fieldsV1") {
        None | Some(Value::Null) => FieldSet::new(),
        Some(fields) => {
            FieldSet::from_json(fields).map_err(|error| format!("error decoding set: {error}"))?
        }
    };
    let id = ManagerId {
        manager: text("manager"),
        applied,
        api_version: if applied {
            String::new()
        } else {
            api_version.clone()
        },
        subresource: text("subresource"),
    };
    let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
    Ok((
        id,
        Owned {
            fields,
            api_version,
            time,
        },
    ))
}

fn write_entry(id: &ManagerId, owned: &Owned) -> Value {
    let mut entry = Map::new();
    entry.insert("apiVersion".to_owned(), owned.api_version.as_str().into());
    entry.insert("fieldsType".to_owned(), "FieldsV1".into());
    entry.insert("fieldsV1".to_owned(), owned.fields.to_json());
    if !id.manager.is_empty() {
        entry.insert("manager".to_owned(), id.manager.as_str().into());
    }
    entry.insert(
        "operation".to_owned(),
        if id.applied { "Apply" } else { "Update" }.into(),
    );
    if !id.subresource.is_empty() {
        entry.insert("subresource".to_owned(), id.subresource.as_str().into());
    }
    if let Some(time) = &owned.time {
        entry.insert("time".to_owned(), time.as_str().into());
    }
    Value::Object(entry)
}

/// Whether the value asks to forget all owners: an empty list, or a list of one empty entry.
pub(super) fn is_reset(entries: Option<&Value>) -> bool {
    match entries {
        Some(Value::Array(entries)) => match entries.as_slice() {
            [] => true,
            [entry] => *entry == json!({}),
            _ => false,
        },
        _ => false,
    }
}

/// What is wrong with the `managedFields` of a request's object.
#[must_use]
pub fn validate_managed_fields(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("metadata").child("managedFields");
    let entries = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    if is_reset(object.pointer("/metadata/managedFields")) {
        return errors;
    }
    for (index, entry) in entries.into_iter().flatten().enumerate() {
        validate_entry(entry, &path.index(index), &mut errors);
    }
    errors
}

fn validate_entry(entry: &Value, path: &Path, errors: &mut ErrorList) {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let operation = text("operation");
    if operation != "Apply" && operation != "Update" {
        errors.push(FieldError::invalid(
            &path.child("operation"),
            operation,
            "must be `Apply` or `Update`",
        ));
    }
    let fields_type = text("fieldsType");
    if !fields_type.is_empty() && fields_type != "FieldsV1" {
        errors.push(FieldError::invalid(
            &path.child("fieldsType"),
            fields_type,
            "must be `FieldsV1`",
        ));
    }
    validate_field_manager(text("manager"), &path.child("manager"), errors);
    if text("subresource").len() > MAX_SUBRESOURCE_LENGTH {
        errors.push(FieldError::too_long(
            &path.child("subresource"),
            MAX_SUBRESOURCE_LENGTH,
        ));
    }
}

/// What is wrong with the name of a field manager: at most 128 bytes, printable characters.
pub fn validate_field_manager(manager: &str, path: &Path, errors: &mut ErrorList) {
    if manager.len() > MAX_MANAGER_LENGTH {
        errors.push(FieldError::too_long(path, MAX_MANAGER_LENGTH));
    }
    if let Some((index, bad)) = manager.char_indices().find(|(_, c)| c.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {index})", u32::from(bad));
        errors.push(FieldError::invalid(path, manager, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updater(number: usize) -> Value {
        json!({
            "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {format!("f:x{number}"): {}},
            "manager": format!("m{number:02}"), "operation": "Update", "time": format!("2026-01-01T00:00:{number:02}Z")
        })
    }

    #[test]
    fn entries_are_written_as_they_were_read_and_sorted() {
        let apply = json!({
            "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}, "manager": "z",
            "operation": "Apply", "time": "2027-01-01T00:00:00Z"
        });
        let status = json!({
            "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {}}, "manager": "m01",
            "operation": "Update", "subresource": "status", "time": "2026-01-01T00:00:01Z"
        });
        let entries = json!([updater(2), status, updater(1), apply]);
        let managers = Managers::read(Some(&entries)).unwrap();
        assert_eq!(managers.write(), json!([apply, updater(1), status, updater(2)]));
    }

    #[test]
    fn more_than_ten_updaters_become_ancient_changes() {
        let entries: Value = (0..13).map(updater).collect();
        let mut managers = Managers::read(Some(&entries)).unwrap();
        managers.cap_updates();
        let written = managers.write();
        let written = written.as_array().unwrap();
        assert_eq!(written.len(), 10);
        assert_eq!(written[0]["manager"], "ancient-changes");
        assert_eq!(
            written[0]["fieldsV1"],
            json!({"f:x0": {}, "f:x1": {}, "f:x2": {}, "f:x3": {}})
        );
        assert_eq!(written[0]["time"], "2026-01-01T00:00:03Z");
    }

    #[test]
    fn broken_entries_are_refused() {
        let table = [
            (
                json!([{"operation": "X"}]),
                "operation must be `Apply` or `Update`",
            ),
            (json!([{"operation": "Apply"}]), "apiVersion must not be empty"),
            (
                json!([{"operation": "Apply", "apiVersion": "v1"}]),
                "missing fieldsType in managed fields entry 0",
            ),
        ];
        for (entries, expected) in table {
            assert_eq!(Managers::read(Some(&entries)).unwrap_err(), expected);
        }
        let object = json!({"metadata": {"managedFields": [
            {"operation": "X", "fieldsType": "V2", "manager": "a\nb", "subresource": "s".repeat(300)}
        ]}});
        assert_eq!(validate_managed_fields(&object).iter().count(), 4);
        assert!(validate_managed_fields(&json!({"metadata": {"managedFields": [{}]}})).is_empty());
    }
}
