//! What the agent serves: `/healthz`, and for the API server the pods' logs.

mod authorizer;
mod logs;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::Service;
use k8s_openapi::api::core::v1::Pod;
use orch_core::informer::Informer;
use orch_core::serve::Peer;
use tokio_util::sync::CancellationToken;

pub use self::authorizer::{Authorizer, Refusal, SystemMasters};
use crate::agent::shared::Shared;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Answers requests.
#[derive(Clone)]
pub(crate) struct Handler {
    shared: Arc<Shared>,
    pods: Informer<Pod>,
    authorizer: Arc<dyn Authorizer>,
    shutdown: CancellationToken,
}

/// The service of one connection. Without an identity only `/healthz` answers.
pub(crate) struct Connection {
    handler: Handler,
    peer: Option<Peer>,
}

impl Handler {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pods: Informer<Pod>,
        authorizer: Arc<dyn Authorizer>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            shared,
            pods,
            authorizer,
            shutdown,
        }
    }

    /// For the server with TLS.
    pub(crate) fn secure(&self) -> impl Fn(Peer) -> Connection + Send + Sync + 'static + use<> {
        let handler = self.clone();
        move |peer| Connection {
            handler: handler.clone(),
            peer: Some(peer),
        }
    }

    /// For the server without.
    pub(crate) fn plain(&self) -> impl Fn(Peer) -> Connection + Send + Sync + 'static + use<> {
        let handler = self.clone();
        move |_| Connection {
            handler: handler.clone(),
            peer: None,
        }
    }

    async fn answer(self, peer: Option<Peer>, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if path == "/healthz" || path == "/healthz/ping" {
            return text(StatusCode::OK, "ok");
        }
        let Some(peer) = peer else {
            return text(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        if let Err(refusal) = self.authorizer.authorize(&peer, request.method(), &path) {
            return text(refusal.status(), &refusal.to_string());
        }
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["pods"] if request.method() == Method::GET => self.list_pods(),
            ["containerLogs", namespace, pod, container] if request.method() == Method::GET => {
                logs::serve(
                    &self,
                    namespace,
                    pod,
                    container,
                    request.uri().query().unwrap_or_default(),
                )
                .await
            }
            ["containerLogs", ..] | ["pods"] => {
                text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed")
            }
            [what @ ("exec" | "attach" | "portForward" | "run"), ..] => text(
                StatusCode::NOT_IMPLEMENTED,
                &format!("{what} is not built into this node agent yet"),
            ),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn list_pods(&self) -> Response<Body> {
        let pods = self.pods.list();
        let list = serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods});
        let mut response = text(StatusCode::OK, &list.to_string());
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert(http::header::CONTENT_TYPE, json);
        response
    }
}

impl Service<Request<Incoming>> for Connection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (handler, peer) = (self.handler.clone(), self.peer.clone());
        Box::pin(async move { Ok(handler.answer(peer, request).await) })
    }
}

/// A short answer.
fn text(status: StatusCode, message: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(message.as_bytes()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}
