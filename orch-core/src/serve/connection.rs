//! One connection, from handshake to end.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::executor::OwnedExecutor;
use super::{BoxError, Limits, Peer, set_nodelay};

pub(super) struct Connection {
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    pub(super) limits: Limits,
    pub(super) shutdown: CancellationToken,
    pub(super) kill: CancellationToken,
}

impl Connection {
    pub(super) async fn serve<S, B>(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        make_service: impl FnOnce(Peer) -> S,
    ) where
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        set_nodelay(&stream);
        let peer = Peer {
            address,
            local: stream.local_addr().unwrap_or(address),
            certificates: Arc::new([]),
            tls: self.tls.is_some(),
        };
        let Some(config) = &self.tls else {
            if self.first_bytes(&stream).await {
                self.http(stream, make_service(peer)).await;
            }
            return;
        };
        let handshake = TlsAcceptor::from(Arc::clone(config)).accept(stream);
        let tls = tokio::select! {
            () = self.shutdown.cancelled() => return,
            handshake = tokio::time::timeout(self.limits.handshake_timeout, handshake) => match handshake {
                Ok(Ok(tls)) => tls,
                Ok(Err(error)) => return tracing::debug!(%address, %error, "TLS handshake failed"),
                Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
            },
        };
        let certificates = certificates(tls.get_ref().1);
        self.http(tls, make_service(Peer { certificates, ..peer })).await;
    }

    /// Waits for the client to say anything. hyper's own limit begins only when it knows the protocol's version.
    async fn first_bytes(&self, stream: &TcpStream) -> bool {
        let mut byte = [0];
        tokio::select! {
            () = self.shutdown.cancelled() => false,
            peeked = tokio::time::timeout(self.limits.header_timeout, stream.peek(&mut byte)) => {
                matches!(peeked, Ok(Ok(n)) if n > 0)
            }
        }
    }

    async fn http<I, S, B>(&self, stream: I, service: S)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (executor, _streams) = OwnedExecutor::new(&self.kill);
        let mut builder = auto::Builder::new(executor);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.max_streams)
            .keep_alive_interval(std::time::Duration::from_secs(30));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::trace!(error, "connection ended early");
        }
    }
}

fn certificates(session: &rustls::ServerConnection) -> Arc<[CertificateDer<'static>]> {
    let chain = session.peer_certificates().unwrap_or_default();
    chain
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect()
}
