//! An HTTPS or HTTP listener: HTTP/1.1 and HTTP/2, client certificates, upgrades, limits and a clean stop.
//!
//! [`Server`] takes a bound socket and, for each connection, makes a service that knows its [`Peer`]: address and the
//! certificates which the client proved to own. Every connection belongs to the [`Server::run`] call that accepted it:
//! when that returns or is dropped, they are closed.
//!
//! ```no_run
//! use std::convert::Infallible;
//! use http_body_util::Full;
//! use hyper::body::{Bytes, Incoming};
//! use hyper::{Request, Response};
//! use orch_core::serve::{Peer, Server};
//!
//! # async fn example(shutdown: tokio_util::sync::CancellationToken) -> std::io::Result<()> {
//! let server = Server::bind("127.0.0.1:8080".parse().expect("an address")).await?;
//! server
//!     .run(
//!         |peer: Peer| {
//!             hyper::service::service_fn(move |_: Request<Incoming>| {
//!                 let text = format!("hello {}\n", peer.address);
//!                 async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))) }
//!             })
//!         },
//!         shutdown,
//!     )
//!     .await;
//! # Ok(())
//! # }
//! ```
//!
//! A `tower::Service` is wrapped with `hyper_util::service::TowerToHyperService`.

mod connection;
mod executor;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use connection::Connection;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Peer {
    /// The remote address.
    pub address: SocketAddr,
    /// The local address that was connected to.
    pub local: SocketAddr,
    /// The client's certificate chain, its own first, verified by the TLS configuration. Empty without one.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// Bounds that a server keeps clients to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Time for the TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Time to send a request's head, and the first bytes of a connection. Default 30 s.
    pub header_timeout: Duration,
    /// Time that open requests get to finish once the server stops. Default 5 s.
    pub grace: Duration,
    /// Requests at once in one HTTP/2 connection. Default 250, as kube-apiserver has.
    pub max_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(5),
            max_streams: 250,
        }
    }
}

/// A bound listener, ready to run.
pub struct Server {
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: Limits,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .field("tls", &self.tls.is_some())
            .field("limits", &self.limits)
            .finish()
    }
}

impl Server {
    /// Serves plain HTTP on `listener` until [`tls`](Self::tls) is set.
    pub fn new(listener: TcpListener) -> Self {
        Server {
            listener,
            tls: None,
            limits: Limits::default(),
        }
    }

    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::new)
    }

    /// Serves TLS with this configuration; [`pki::server_config`](crate::pki::server_config) makes one.
    #[must_use]
    pub fn tls(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Changes the limits.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// The bound address.
    ///
    /// # Errors
    /// When the socket does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`; then accepts no more, tells clients to go, gives open requests the grace period, and
    /// closes what is left. `make_service` is called once a connection.
    ///
    /// Requests that never end by themselves (watches) should end on the same `shutdown`.
    pub async fn run<F, S, B>(self, make_service: F, shutdown: CancellationToken)
    where
        F: Fn(Peer) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let make_service = Arc::new(make_service);
        // Ends what is left when this future is dropped or the grace period is over.
        let kill = CancellationToken::new();
        let _kill_on_drop = kill.clone().drop_guard();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        let connection = Connection {
                            tls: self.tls.clone(),
                            limits: self.limits,
                            shutdown: shutdown.clone(),
                            kill: kill.clone(),
                        };
                        let make_service = Arc::clone(&make_service);
                        connections.spawn(async move {
                            connection.serve(stream, address, |peer| make_service(peer)).await;
                        });
                    }
                    Err(error) => accept_failed(&error).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(self.listener);
        let drain = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.limits.grace, drain).await.is_err() {
            tracing::debug!(
                open = connections.len(),
                "closing connections that did not finish"
            );
        }
        kill.cancel();
        connections.shutdown().await;
    }
}

/// A connection that broke before it was accepted is the client's matter; all else (no file descriptors left) wants a
/// pause, for it would come again at once.
async fn accept_failed(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        return;
    }
    tracing::warn!(%error, "cannot accept connections");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn set_nodelay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
}
