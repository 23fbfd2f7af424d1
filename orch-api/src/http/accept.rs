//! Content negotiation: which shape of an answer a client wants.

use http::HeaderMap;
use http::header::ACCEPT;
use orch_core::status::ApiError;

/// The media types that the server writes.
pub(crate) const OFFERED: [&str; 1] = ["application/json"];

/// What an object is turned into for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The object as it is.
    Object,
    /// A `meta.k8s.io` Table of that version.
    Table(&'static str),
    /// A `meta.k8s.io` PartialObjectMetadata (or its list) of that version.
    Metadata(&'static str),
    /// Aggregated discovery of that version.
    AggregatedDiscovery(&'static str),
}

/// One entry of an `Accept` header.
struct Clause<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters: Vec<(&str, &str)> = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        let quality = parameters
            .iter()
            .find(|(key, _)| *key == "q")
            .and_then(|(_, q)| q.parse().ok())
            .unwrap_or(1.0);
        Self {
            media,
            parameters,
            quality,
        }
    }

    fn parameter(&self, name: &str) -> &'a str {
        self.parameters
            .iter()
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    }

    fn shape(&self) -> Option<Shape> {
        if !matches!(self.media, "application/json" | "application/*" | "*/*") {
            return None;
        }
        let version =
            |known: [&'static str; 2]| known.into_iter().find(|version| *version == self.parameter("v"));
        match (self.parameter("as"), self.parameter("g")) {
            ("", _) => Some(Shape::Object),
            ("Table", "meta.k8s.io") => version(["v1", "v1beta1"]).map(Shape::Table),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io") => {
                version(["v1", "v1beta1"]).map(Shape::Metadata)
            }
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io") => {
                version(["v2", "v2beta1"]).map(Shape::AggregatedDiscovery)
            }
            _ => None,
        }
    }
}

/// The best shape that the client takes and `allowed` lets through.
pub(crate) fn negotiate(headers: &HeaderMap, allowed: impl Fn(Shape) -> bool) -> Result<Shape, ApiError> {
    let values: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    if values.iter().all(|value| value.trim().is_empty()) {
        return Ok(Shape::Object);
    }
    let mut clauses: Vec<Clause<'_>> = values
        .iter()
        .flat_map(|value| value.split(','))
        .map(Clause::parse)
        .collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    let acceptable = clauses.iter().filter(|clause| clause.quality > 0.0);
    let best = acceptable.filter_map(Clause::shape).find(|shape| allowed(*shape));
    best.ok_or_else(|| ApiError::not_acceptable(&OFFERED))
}

/// For objects and lists: everything but discovery.
pub(crate) fn negotiate_object(headers: &HeaderMap) -> Result<Shape, ApiError> {
    negotiate(headers, |shape| !matches!(shape, Shape::AggregatedDiscovery(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(accept: &str) -> Result<Shape, ApiError> {
        let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
        negotiate_object(&headers)
    }

    #[test]
    fn kubectl_gets_tables() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(object(kubectl).unwrap(), Shape::Table("v1"));
        assert_eq!(
            object("application/json;as=Table;v=v1beta1;g=meta.k8s.io").unwrap(),
            Shape::Table("v1beta1")
        );
    }

    #[test]
    fn protobuf_falls_back_to_json_and_alone_is_refused() {
        assert_eq!(
            object("application/vnd.kubernetes.protobuf, application/json").unwrap(),
            Shape::Object
        );
        assert_eq!(
            object("application/vnd.kubernetes.protobuf").unwrap_err().code(),
            406
        );
        assert_eq!(object("*/*").unwrap(), Shape::Object);
    }

    #[test]
    fn quality_decides_and_zero_excludes() {
        let accept = "application/json;q=0.5, application/json;as=Table;v=v1;g=meta.k8s.io;q=0.9";
        assert_eq!(object(accept).unwrap(), Shape::Table("v1"));
        assert!(object("application/json;q=0").is_err());
    }

    #[test]
    fn an_unknown_shape_is_skipped() {
        assert_eq!(
            object("application/json;as=Foo;v=v1;g=meta.k8s.io,application/json").unwrap(),
            Shape::Object
        );
        assert!(object("application/json;as=Foo;v=v1;g=meta.k8s.io").is_err());
    }
}
