//! Which objects of a resource a list or watch is about.

use bytes::Bytes;
use orch_core::selector::{FieldSelector, LabelSelector};
use orch_core::status::ApiError;

use super::Resource;
use super::options::ListOptions;
use crate::cache::entry::Entry;
use crate::cache::topic::Topic;
use crate::cache::{fields, indexed};
use crate::strategy::Strategy;

/// Where and what to select.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) namespace: String,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(crate) fn parse(
        resource: &Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Self, ApiError> {
        let labels = LabelSelector::parse(&options.label_selector)
            .map_err(|error| ApiError::bad_request(format!("unable to parse requirement: {error}")))?;
        let fields = FieldSelector::parse(&options.field_selector)
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        for requirement in fields.requirements() {
            check_field(&*resource.strategy, &requirement.field)?;
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            labels,
            fields,
        })
    }

    /// Everything in a namespace, or everything there is when that is empty.
    pub(crate) fn all(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            labels: LabelSelector::everything(),
            fields: FieldSelector::everything(),
        }
    }

    /// Whether only the namespace selects.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub(crate) fn prefix(&self, strategy: &dyn Strategy) -> String {
        match self.namespace.as_str() {
            "" => strategy.info().prefix(),
            namespace => strategy.info().namespace_prefix(namespace),
        }
    }

    pub(crate) fn matches(&self, strategy: &dyn Strategy, entry: &Entry) -> bool {
        if !self.namespace.is_empty() && *entry.namespace != *self.namespace {
            return false;
        }
        (self.labels.is_everything() || self.labels.matches(&entry.labels))
            && (self.fields.is_everything() || self.fields.matches(|field| value(strategy, entry, field)))
    }

    /// The narrowest topic that has every change this selection can see.
    pub(crate) fn topic(&self, strategy: &dyn Strategy) -> Topic {
        let info = strategy.info();
        let exact = |field: &str| self.fields.exact_value(field).map(str::to_owned);
        if let Some(name) = exact("metadata.name") {
            let namespace = match self.namespace.as_str() {
                "" => exact("metadata.namespace").unwrap_or_default(),
                namespace => namespace.to_owned(),
            };
            if namespace.is_empty() != info.is_namespaced() {
                return Topic::Object(Bytes::from(info.key(&namespace, &name)));
            }
        }
        if let Some(value) = indexed(strategy).and_then(exact) {
            return Topic::Field(value.into());
        }
        match self.namespace.as_str() {
            "" => Topic::All,
            namespace => Topic::Namespace(namespace.into()),
        }
    }
}

fn value<'a>(strategy: &dyn Strategy, entry: &'a Entry, field: &str) -> Option<&'a str> {
    match field {
        "metadata.name" => Some(&entry.name),
        "metadata.namespace" => Some(&entry.namespace),
        other => fields(strategy, entry)
            .iter()
            .find(|(name, _)| *name == other)
            .map(|(_, value)| value.as_str()),
    }
}

fn check_field(strategy: &dyn Strategy, field: &str) -> Result<(), ApiError> {
    let known = strategy.field_names();
    if matches!(field, "metadata.name" | "metadata.namespace") || known.iter().any(|name| name == field) {
        return Ok(());
    }
    Err(ApiError::bad_request(if known.is_empty() {
        format!("\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    }))
}
