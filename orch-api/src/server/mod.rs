//! The server: its builder, its service, its listener.

mod builder;
mod discovery;
mod dispatch;
mod health;
mod identity;
mod impersonation;
mod object;
mod openid;
mod reviews;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::{Request, Response};
use orch_core::ready::Ready;
use orch_core::serve::Server;
use tokio_util::sync::CancellationToken;
use tower::Service;

pub use self::builder::{ApiServerBuilder, BuildError};
pub(crate) use self::dispatch::yaml_to_json;
use crate::context::Context;
use crate::http::body::Body;
use crate::user::UserInfo;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A Kubernetes API server: a `tower::Service` for HTTP requests, with nothing else needed.
///
/// Requests carry who asks as an extension of type [`UserInfo`]; without one their credentials count. [`client`](Self::client)
/// and [`serve`](Self::serve) set it. Clones share one server. Its background work ends when the last clone is dropped, or
/// with [`stop`](Self::stop).
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) context: Arc<Context>,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").finish_non_exhaustive()
    }
}

impl ApiServer {
    /// A server on a store; see [`ApiServerBuilder`] for what can be chosen.
    pub fn builder(store: Arc<dyn orch_store::Store>) -> ApiServerBuilder {
        ApiServerBuilder::new(store)
    }

    /// A client within this process: requests are function calls, with no socket and no TLS between.
    ///
    /// Must be called within a Tokio runtime.
    #[must_use]
    pub fn client(&self, user: UserInfo) -> kube::Client {
        kube::Client::new(self.as_user(user), "default")
    }

    /// The service as one user sees it, whatever identity requests carry.
    #[must_use]
    pub fn as_user(&self, user: UserInfo) -> ApiService {
        ApiService {
            server: self.clone(),
            user: Some(user),
        }
    }

    /// Serves a listener until `shutdown`. With TLS that verifies client certificates, a certificate's common name is the
    /// user and its organizations are the groups; requests on connections without one are asked for a
    /// token, and without that are anonymous. Watches end with `shutdown` too.
    pub async fn serve(&self, listener: Server, shutdown: CancellationToken) {
        let server = self.clone();
        let stopped = shutdown.clone();
        let make = move |peer: orch_core::serve::Peer| {
            let user = identity::of_peer(&peer);
            let service = ApiService {
                server: server.clone(),
                user,
            };
            hyper_util::service::TowerToHyperService::new(Stoppable {
                service,
                stopped: stopped.clone(),
            })
        };
        listener.run(make, shutdown).await;
    }

    /// Ready once it is built: the caches start when they are first asked.
    #[must_use]
    pub fn ready(&self) -> Ready {
        let ready = Ready::new();
        ready.set();
        ready
    }

    /// Ends the background work and all watches. Later requests fail or see an ever older state.
    pub fn stop(&self) {
        self.context.tasks.stop();
    }
}

/// An [`ApiServer`] as one user sees it.
#[derive(Clone, Debug)]
pub struct ApiService {
    server: ApiServer,
    user: Option<UserInfo>,
}

type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<B> Service<Request<B>> for ApiServer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let context = Arc::clone(&self.context);
        let user = request.extensions().get::<UserInfo>().cloned();
        Box::pin(async move { Ok(dispatch::handle(context, user, request).await) })
    }
}

impl<B> Service<Request<B>> for ApiService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let context = Arc::clone(&self.server.context);
        let user = self.user.clone();
        Box::pin(async move { Ok(dispatch::handle(context, user, request).await) })
    }
}

/// Ends the streams of a listener's responses with the listener.
#[derive(Clone, Debug)]
struct Stoppable {
    service: ApiService,
    stopped: CancellationToken,
}

impl<B> Service<Request<B>> for Stoppable
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let response = self.service.call(request);
        let stopped = self.stopped.clone();
        Box::pin(async move { Ok(response.await?.map(|body| body.until(stopped))) })
    }
}
