//! ConfigMaps.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::{Check, Path};
use super::format;
use super::table::{self, AGE, NAME, number};
use super::text::entries;
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

/// All values of a ConfigMap or Secret together.
pub(super) const MAX_SIZE: usize = 1024 * 1024;
pub(super) const FROZEN: &str = "field is immutable when `immutable` is set";

/// The rules of ConfigMaps.
pub(super) struct ConfigMaps;

impl Kind for ConfigMaps {
    type Object = ConfigMap;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("", "v1", "ConfigMap", "configmaps").short(["cm"])
    }

    fn validate(map: &ConfigMap) -> ErrorList {
        Check::run(|check| {
            let mut size = 0;
            for (key, value) in entries(&map.data) {
                let path = Path::new("data").key(key);
                check.faults(&path, key, format::config_map_key(key));
                if map
                    .binary_data
                    .as_ref()
                    .is_some_and(|data| data.contains_key(key))
                {
                    check.invalid(&path, key, "duplicate of key present in binaryData");
                }
                size += value.len();
            }
            for (key, value) in entries(&map.binary_data) {
                check.faults(
                    &Path::new("binaryData").key(key),
                    key,
                    format::config_map_key(key),
                );
                size += value.0.len();
            }
            if size > MAX_SIZE {
                check.too_long(&Path::new(""), MAX_SIZE);
            }
        })
    }

    fn validate_update(new: &ConfigMap, old: &ConfigMap) -> ErrorList {
        let mut errors = Check::run(|check| {
            if old.immutable != Some(true) {
                return;
            }
            if new.immutable != Some(true) {
                check.forbidden(&Path::new("immutable"), FROZEN);
            }
            if !entries(&new.data).eq(entries(&old.data)) {
                check.forbidden(&Path::new("data"), FROZEN);
            }
            if !entries(&new.binary_data).eq(entries(&old.binary_data)) {
                check.forbidden(&Path::new("binaryData"), FROZEN);
            }
        });
        errors.extend(Self::validate(new));
        errors
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[NAME, number("Data", "How many keys it holds."), AGE];
        COLUMNS
    }

    fn cells(map: &ConfigMap, now: Timestamp) -> Vec<Value> {
        let keys = entries(&map.data).count() + entries(&map.binary_data).count();
        vec![
            table::name(&map.metadata),
            keys.into(),
            table::age(&map.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(json: Value) -> ConfigMap {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn keys_are_file_names_and_unique_over_both_maps() {
        let errors = ConfigMaps::validate(&map(json!({"data": {"a/b": ""}}))).to_string();
        assert!(
            errors.starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key must consist of"),
            "{errors}"
        );
        let errors = ConfigMaps::validate(&map(json!({"data": {"a": ""}, "binaryData": {"a": "YQ=="}})));
        assert_eq!(
            errors.to_string(),
            "data[a]: Invalid value: \"a\": duplicate of key present in binaryData"
        );
    }

    #[test]
    fn an_immutable_map_stays_as_it_is() {
        let old = map(json!({"immutable": true, "data": {"a": "1"}}));
        let new = map(json!({"data": {"a": "2"}}));
        assert_eq!(
            ConfigMaps::validate_update(&new, &old).to_string(),
            "[immutable: Forbidden: field is immutable when `immutable` is set, data: Forbidden: field is immutable when \
             `immutable` is set]"
        );
        assert!(ConfigMaps::validate_update(&old, &old).is_empty());
    }
}
