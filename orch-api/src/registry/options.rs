//! What a request asks for, read from its query and headers.

use std::time::Duration;

use http::HeaderMap;
use http::header::USER_AGENT;
use orch_core::field::{ErrorList, FieldError, Path};
use orch_core::status::{ApiError, GroupKind};

use crate::http::query::Query;

/// What happens to fields that a kind does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum FieldValidation {
    /// They are dropped in silence.
    Ignore,
    /// They are dropped, and the client is warned.
    #[default]
    Warn,
    /// They fail the request.
    Strict,
}

/// Options common to all writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_manager: String,
    /// Whether the client named its manager itself.
    pub(crate) names_manager: bool,
    pub(crate) field_validation: FieldValidation,
    pub(crate) force: Option<bool>,
}

fn invalid(kind: &'static str, errors: &ErrorList) -> ApiError {
    ApiError::invalid(&GroupKind::new("meta.k8s.io", kind), "", errors)
}

impl WriteOptions {
    /// Reads them; `kind` is the options' kind, which errors name: `CreateOptions` and so on.
    pub(crate) fn parse(query: &Query, headers: &HeaderMap, kind: &'static str) -> Result<Self, ApiError> {
        let mut errors = ErrorList::new();
        let manager = query.get("fieldManager");
        validate_manager(manager, &mut errors);
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let field_validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let supported = ["Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported(
                    &Path::new("fieldValidation"),
                    other,
                    supported,
                ));
                FieldValidation::Ignore
            }
        };
        if !errors.is_empty() {
            return Err(invalid(kind, &errors));
        }
        let field_manager = manager.map_or_else(|| user_agent_manager(headers), str::to_owned);
        let force = query.has("force").then(|| query.flag("force"));
        Ok(Self {
            dry_run,
            field_manager,
            names_manager: manager.is_some(),
            field_validation,
            force,
        })
    }
}

fn validate_manager(manager: Option<&str>, errors: &mut ErrorList) {
    let (path, manager) = (Path::new("fieldManager"), manager.unwrap_or_default());
    if manager.len() > 128 {
        errors.push(FieldError::too_long(&path, 128));
    }
    if manager.chars().any(char::is_control) {
        errors.push(FieldError::invalid(
            &path,
            manager,
            "should only contain printable characters",
        ));
    }
}

/// Whether nothing shall be stored.
pub(crate) fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut ErrorList) -> bool {
    let mut found = false;
    for value in values {
        found = true;
        if value != "All" {
            errors.push(FieldError::not_supported(&Path::new("dryRun"), value, ["All"]));
        }
    }
    found
}

/// The manager of those who name none: the first part of their user agent.
fn user_agent_manager(headers: &HeaderMap) -> String {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

/// How a resourceVersion in a list binds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// Options of list and watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    pub(crate) limit: usize,
    pub(crate) continue_token: String,
    /// `None` when the client gave none.
    pub(crate) resource_version: Option<u64>,
    pub(crate) version_match: Option<VersionMatch>,
    pub(crate) watch: bool,
    pub(crate) bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) timeout: Option<Duration>,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiError> {
        let mut errors = ErrorList::new();
        let options = Self {
            label_selector: query.get("labelSelector").unwrap_or_default().to_owned(),
            field_selector: query.get("fieldSelector").unwrap_or_default().to_owned(),
            limit: query
                .number("limit")?
                .and_then(|limit| usize::try_from(limit).ok())
                .unwrap_or(0),
            continue_token: query.get("continue").unwrap_or_default().to_owned(),
            resource_version: resource_version(query.get("resourceVersion"))?,
            version_match: version_match(query.get("resourceVersionMatch"), &mut errors),
            watch: query.flag("watch"),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query
                .get("sendInitialEvents")
                .map(|_| query.flag("sendInitialEvents")),
            timeout: query
                .number("timeoutSeconds")?
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
        };
        options.validate(&mut errors);
        if errors.is_empty() {
            Ok(options)
        } else {
            Err(invalid("ListOptions", &errors))
        }
    }

    /// Upstream's `ValidateListOptions`.
    fn validate(&self, errors: &mut ErrorList) {
        let forbid = |errors: &mut ErrorList, field, why: &str| {
            errors.push(FieldError::forbidden(&Path::new(field), why));
        };
        if let (Some(initial), true) = (self.send_initial_events, self.watch) {
            if self.version_match != Some(VersionMatch::NotOlderThan) {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                forbid(errors, "resourceVersionMatch", why);
            }
            if initial && !self.bookmarks {
                forbid(
                    errors,
                    "allowWatchBookmarks",
                    "sendInitialEvents requires setting allowWatchBookmarks to true",
                );
            }
            return;
        }
        if self.send_initial_events.is_some() {
            forbid(
                errors,
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            );
        }
        let Some(wanted) = self.version_match else { return };
        let field = "resourceVersionMatch";
        if self.watch {
            forbid(
                errors,
                field,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        } else if self.resource_version.is_none() {
            forbid(
                errors,
                field,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        } else if !self.continue_token.is_empty() {
            forbid(
                errors,
                field,
                "resourceVersionMatch is forbidden when continue is provided",
            );
        } else if wanted == VersionMatch::Exact && self.resource_version == Some(0) {
            forbid(
                errors,
                field,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            );
        }
    }
}

/// A resourceVersion as clients send it.
pub(crate) fn resource_version(text: Option<&str>) -> Result<Option<u64>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(version) => Ok(Some(version)),
        Err(_) => {
            let why = format!(
                "strconv.ParseUint: parsing {}: invalid syntax",
                orch_core::field::quote(text)
            );
            let error = FieldError::invalid(&Path::new("resourceVersion"), text, why);
            Err(ApiError::invalid(
                &GroupKind::new("", ""),
                "",
                &ErrorList::from_iter([error]),
            ))
        }
    }
}

fn version_match(text: Option<&str>, errors: &mut ErrorList) -> Option<VersionMatch> {
    match text {
        None => None,
        Some("Exact") => Some(VersionMatch::Exact),
        Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
        Some(other) => {
            let supported = ["Exact", "NotOlderThan", ""];
            errors.push(FieldError::not_supported(
                &Path::new("resourceVersionMatch"),
                other,
                supported,
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> Result<ListOptions, ApiError> {
        ListOptions::parse(&Query::parse(Some(query)))
    }

    #[test]
    fn a_version_match_needs_a_version() {
        let error = list("resourceVersionMatch=Exact").unwrap_err();
        assert!(
            error
                .message()
                .contains("resourceVersionMatch is forbidden unless resourceVersion is provided")
        );
        assert!(list("resourceVersionMatch=Exact&resourceVersion=0").is_err());
        assert!(list("resourceVersionMatch=Foo&resourceVersion=1").is_err());
        let options = list("resourceVersionMatch=Exact&resourceVersion=7").unwrap();
        assert_eq!(
            (options.resource_version, options.version_match),
            (Some(7), Some(VersionMatch::Exact))
        );
    }

    #[test]
    fn initial_events_need_bookmarks_and_a_match() {
        assert!(list("watch=1&sendInitialEvents=true").is_err());
        assert!(list("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan").is_err());
        list("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
            .unwrap();
        assert!(list("sendInitialEvents=true").is_err());
    }

    #[test]
    fn a_manager_comes_from_the_user_agent_if_from_nowhere_else() {
        let headers = HeaderMap::from_iter([(USER_AGENT, "kubectl/v1.32.0 (linux/amd64)".parse().unwrap())]);
        let parse = |query| WriteOptions::parse(&Query::parse(Some(query)), &headers, "CreateOptions");
        assert_eq!(parse("").unwrap().field_manager, "kubectl");
        assert_eq!(parse("fieldManager=me").unwrap().field_manager, "me");
        assert!(parse("fieldManager=a%0Ab").is_err());
        assert!(parse("dryRun=All").unwrap().dry_run);
        assert!(parse("dryRun=Some").is_err());
        assert!(parse("fieldValidation=strict").is_err());
    }
}
