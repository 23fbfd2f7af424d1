//! What `/metrics` tells, under upstream's names.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, Response, StatusCode};
use prometheus::process_collector::ProcessCollector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::authz::Attributes;
use crate::http::body::Body;
use crate::registry::Resources;

/// Upper bounds in seconds, as upstream.
const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// Upper bounds in bytes, as upstream.
const BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

const COMPONENT: &str = "apiserver";

/// Which requests; the labels of one more metric come before these.
const LABELS: [&str; 8] = [
    "component",
    "dry_run",
    "group",
    "resource",
    "scope",
    "subresource",
    "verb",
    "version",
];

/// The metrics of one server. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    sizes: HistogramVec,
    inflight: IntGaugeVec,
    long_running: IntGaugeVec,
    objects: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let inner = Inner::new().expect("the names are valid, and each is there once");
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A request begins.
    pub(crate) fn begin(&self, method: &Method) -> Running {
        let kind = if matches!(*method, Method::GET | Method::HEAD) {
            "readOnly"
        } else {
            "mutating"
        };
        self.inner.inflight.with_label_values(&[kind]).inc();
        Running {
            metrics: self.clone(),
            kind,
            began: Instant::now(),
        }
    }

    /// All of them, in Prometheus' text format.
    pub(crate) fn text(&self, resources: &Resources) -> Result<String, prometheus::Error> {
        for (resource, count) in resources.load().counts() {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.inner.objects.with_label_values(&[&resource]).set(count);
        }
        TextEncoder::new().encode_to_string(&self.inner.registry.gather())
    }
}

impl Inner {
    fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let with_code: Vec<&str> = ["code"].into_iter().chain(LABELS).collect();
        let inner = Self {
            requests: IntCounterVec::new(
                Opts::new(
                    "apiserver_request_total",
                    "Requests that were answered, by what they asked for and the code of the answer.",
                ),
                &with_code,
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new("apiserver_request_duration_seconds", "How long requests took.")
                    .buckets(SECONDS.to_vec()),
                &LABELS,
            )?,
            sizes: HistogramVec::new(
                HistogramOpts::new(
                    "apiserver_response_sizes",
                    "How many bytes answers had, before compression; watches apart.",
                )
                .buckets(BYTES.to_vec()),
                &LABELS,
            )?,
            inflight: IntGaugeVec::new(
                Opts::new(
                    "apiserver_current_inflight_requests",
                    "Requests that are being answered, watches apart.",
                ),
                &["request_kind"],
            )?,
            long_running: IntGaugeVec::new(
                Opts::new(
                    "apiserver_longrunning_requests",
                    "Watches and other requests that last.",
                ),
                &LABELS,
            )?,
            objects: IntGaugeVec::new(
                Opts::new(
                    "apiserver_storage_objects",
                    "Objects of each resource that was asked for since the start.",
                ),
                &["resource"],
            )?,
            registry,
        };
        inner.registry.register(Box::new(inner.requests.clone()))?;
        inner.registry.register(Box::new(inner.durations.clone()))?;
        inner.registry.register(Box::new(inner.sizes.clone()))?;
        inner.registry.register(Box::new(inner.inflight.clone()))?;
        inner.registry.register(Box::new(inner.long_running.clone()))?;
        inner.registry.register(Box::new(inner.objects.clone()))?;
        inner.registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(inner)
    }
}

/// A request under way. It is counted as such until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    metrics: Metrics,
    kind: &'static str,
    began: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.metrics.inner.inflight.with_label_values(&[self.kind]).dec();
    }
}

impl Running {
    /// The answer is at hand. A stream is counted when it has ended.
    pub(crate) fn end(
        self,
        attributes: Option<&Attributes>,
        method: &Method,
        headers: &HeaderMap,
        dry_run: bool,
        response: Response<Body>,
    ) -> Response<Body> {
        let request = Request {
            metrics: self.metrics.clone(),
            began: self.began,
            labels: Labels::new(attributes, method, headers, dry_run),
            code: response.status(),
        };
        match response.body().length() {
            Some(length) => {
                request.labels.with(|labels| {
                    let sizes = &request.metrics.inner.sizes;
                    sizes.with_label_values(labels).observe(length as f64);
                });
                request.count();
                response
            }
            None => {
                let lasting = Lasting::begin(request);
                response.map(|body| body.holding(lasting))
            }
        }
    }
}

/// A request that was answered.
struct Request {
    metrics: Metrics,
    began: Instant,
    labels: Labels,
    code: StatusCode,
}

impl Request {
    fn count(&self) {
        let inner = &self.metrics.inner;
        self.labels.with(|labels| {
            let mut all = [self.code.as_str(); LABELS.len() + 1];
            all[1..].copy_from_slice(labels);
            inner.requests.with_label_values(&all).inc();
            let duration = self.began.elapsed().as_secs_f64();
            inner.durations.with_label_values(labels).observe(duration);
        });
    }
}

/// A request whose answer goes on until this is dropped.
struct Lasting(Request);

impl Lasting {
    fn begin(request: Request) -> Self {
        let gauge = &request.metrics.inner.long_running;
        request
            .labels
            .with(|labels| gauge.with_label_values(labels).inc());
        Self(request)
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let gauge = &self.0.metrics.inner.long_running;
        self.0.labels.with(|labels| gauge.with_label_values(labels).dec());
        self.0.count();
    }
}

/// What a request asked for.
#[derive(Debug, Default)]
struct Labels {
    dry_run: &'static str,
    group: String,
    resource: String,
    scope: &'static str,
    subresource: String,
    verb: &'static str,
    version: String,
}

impl Labels {
    /// Without attributes, which are those of a resource that is served, it counts as one for no resource: a client could
    /// name any number of others.
    fn new(attributes: Option<&Attributes>, method: &Method, headers: &HeaderMap, dry_run: bool) -> Self {
        let dry_run = if dry_run { "All" } else { "" };
        let Some(attributes) = attributes else {
            return Self {
                dry_run,
                verb: verb_of_method(method),
                ..Self::default()
            };
        };
        Self {
            dry_run,
            group: attributes.group.clone(),
            resource: attributes.resource.clone(),
            scope: scope(attributes),
            subresource: attributes.subresource.clone(),
            verb: verb(attributes, method, headers),
            version: attributes.version.clone(),
        }
    }

    fn with(&self, use_them: impl FnOnce(&[&str; LABELS.len()])) {
        use_them(&[
            COMPONENT,
            self.dry_run,
            &self.group,
            &self.resource,
            self.scope,
            &self.subresource,
            self.verb,
            &self.version,
        ]);
    }
}

fn scope(attributes: &Attributes) -> &'static str {
    if !attributes.name.is_empty() || attributes.verb == "create" {
        "resource"
    } else if !attributes.namespace.is_empty() {
        "namespace"
    } else {
        "cluster"
    }
}

fn verb(attributes: &Attributes, method: &Method, headers: &HeaderMap) -> &'static str {
    match attributes.verb.as_str() {
        "list" => "LIST",
        "watch" => "WATCH",
        "deletecollection" => "DELETECOLLECTION",
        "patch" if is_apply(headers) => "APPLY",
        _ => verb_of_method(method),
    }
}

fn is_apply(headers: &HeaderMap) -> bool {
    let media = headers.get(http::header::CONTENT_TYPE);
    media.is_some_and(|media| media.as_bytes().starts_with(b"application/apply-patch+"))
}

/// Clients could send any; all others count as one.
fn verb_of_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(verb: &str, name: &str, namespace: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            version: "v1".into(),
            resource: "pods".into(),
            name: name.into(),
            namespace: namespace.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn requests_are_told_apart_as_upstream_does() {
        let apply = HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/apply-patch+yaml"),
        )]);
        let plain = HeaderMap::new();
        for (attributes, method, headers, verb, scope) in [
            (attributes("list", "", ""), Method::GET, &plain, "LIST", "cluster"),
            (
                attributes("list", "", "a"),
                Method::GET,
                &plain,
                "LIST",
                "namespace",
            ),
            (
                attributes("get", "x", "a"),
                Method::GET,
                &plain,
                "GET",
                "resource",
            ),
            (
                attributes("create", "", "a"),
                Method::POST,
                &plain,
                "POST",
                "resource",
            ),
            (
                attributes("patch", "x", "a"),
                Method::PATCH,
                &plain,
                "PATCH",
                "resource",
            ),
            (
                attributes("patch", "x", "a"),
                Method::PATCH,
                &apply,
                "APPLY",
                "resource",
            ),
        ] {
            let labels = Labels::new(Some(&attributes), &method, headers, false);
            assert_eq!((labels.verb, labels.scope), (verb, scope));
        }
    }
}
