//! Secrets. No value of a secret ever stands in an error.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use orch_core::field::ErrorList;
use serde_json::{Map, Value};

use super::check::{Check, Path};
use super::config_map::{FROZEN, MAX_SIZE};
use super::format;
use super::table::{self, AGE, NAME, number, text_column};
use super::text::{default_text, entries, text};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

/// The rules of secrets.
pub(super) struct Secrets;

impl Kind for Secrets {
    type Object = Secret;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("", "v1", "Secret", "secrets")
    }

    fn default(secret: &mut Secret) {
        for (key, value) in secret.string_data.take().into_iter().flatten() {
            secret
                .data
                .get_or_insert_default()
                .insert(key, ByteString(value.into_bytes()));
        }
        default_text(&mut secret.type_, "Opaque");
    }

    fn prepare_for_update(new: &mut Secret, old: &Secret) {
        // Old clients send no type with an update.
        if text(&new.type_).is_empty() {
            new.type_.clone_from(&old.type_);
        }
    }

    fn validate(secret: &Secret) -> ErrorList {
        Check::run(|check| {
            let path = Path::new("data");
            let mut size = 0;
            for (key, value) in entries(&secret.data) {
                check.faults(&path.key(key), key, format::config_map_key(key));
                size += value.0.len();
            }
            if size > MAX_SIZE {
                check.too_long(&path, MAX_SIZE);
            }
            content(check, secret, &path);
        })
    }

    fn validate_update(new: &Secret, old: &Secret) -> ErrorList {
        let mut errors = Check::run(|check| {
            check.immutable(&Path::new("type"), &new.type_, &old.type_);
            if old.immutable != Some(true) {
                return;
            }
            if new.immutable != Some(true) {
                check.forbidden(&Path::new("immutable"), FROZEN);
            }
            if !entries(&new.data).eq(entries(&old.data)) {
                check.forbidden(&Path::new("data"), FROZEN);
            }
        });
        errors.extend(Self::validate(new));
        errors
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            text_column("Type", "What the secret is for."),
            number("Data", "How many keys it holds."),
            AGE,
        ];
        COLUMNS
    }

    fn cells(secret: &Secret, now: Timestamp) -> Vec<Value> {
        vec![
            table::name(&secret.metadata),
            text(&secret.type_).into(),
            entries(&secret.data).count().into(),
            table::age(&secret.metadata, now),
        ]
    }

    fn selectable_fields(secret: &Secret) -> Vec<(&'static str, String)> {
        vec![("type", text(&secret.type_).to_owned())]
    }
}

/// Which keys the type of a secret asks for.
fn content(check: &mut Check, secret: &Secret, path: &Path) {
    let value = |key: &str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(|value| value.0.as_slice())
    };
    match text(&secret.type_) {
        "kubernetes.io/service-account-token" => {
            let name = "kubernetes.io/service-account.name";
            let annotations = secret.metadata.annotations.as_ref();
            if annotations
                .and_then(|annotations| annotations.get(name))
                .is_none_or(String::is_empty)
            {
                check.required(&Path::new("metadata").child("annotations").key(name), "");
            }
        }
        "kubernetes.io/dockercfg" => json(check, value(".dockercfg"), &path.key(".dockercfg")),
        "kubernetes.io/dockerconfigjson" => {
            json(check, value(".dockerconfigjson"), &path.key(".dockerconfigjson"));
        }
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            check.required(&path.key("username"), "");
            check.required(&path.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(<[u8]>::is_empty) => {
            check.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if value(key).is_none() {
                    check.required(&path.key(key), "");
                }
            }
        }
        _ => {}
    }
}

fn json(check: &mut Check, value: Option<&[u8]>, path: &Path) {
    match value {
        None => check.required(path, ""),
        Some(bytes) => {
            if let Err(error) = serde_json::from_slice::<Map<String, Value>>(bytes) {
                // The parser's message may quote the content, its class and place do not.
                let why = format!("invalid JSON at line {} column {}", error.line(), error.column());
                check.invalid(path, "<secret contents redacted>", why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(json: Value) -> Secret {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn string_data_wins_over_data_and_is_not_kept() {
        let mut secret = secret(json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "z"}}));
        Secrets::default(&mut secret);
        assert_eq!(
            serde_json::to_value(&secret).unwrap(),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "type": "Opaque",
                "data": {"a": "eg==", "b": "eQ=="}})
        );
    }

    #[test]
    fn types_ask_for_their_keys() {
        for (json, errors) in [
            (
                json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
                "data[tls.key]: Required value",
            ),
            (
                json!({"type": "kubernetes.io/basic-auth"}),
                "[data[username]: Required value, data[password]: Required value]",
            ),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                "metadata.annotations[kubernetes.io/service-account.name]: Required value",
            ),
            (json!({"type": "example.com/mine"}), "[]"),
        ] {
            assert_eq!(Secrets::validate(&secret(json)).to_string(), errors);
        }
    }

    #[test]
    fn an_error_does_not_tell_the_content() {
        let secret = secret(
            json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "c2VjcmV0"}}),
        );
        let errors = Secrets::validate(&secret).to_string();
        assert_eq!(
            errors,
            "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid JSON at line 1 column 1"
        );
    }

    #[test]
    fn the_type_never_changes() {
        let (old, new) = (secret(json!({"type": "Opaque"})), secret(json!({"type": "x"})));
        assert_eq!(
            Secrets::validate_update(&new, &old).to_string(),
            "type: Invalid value: \"x\": field is immutable"
        );
    }
}
