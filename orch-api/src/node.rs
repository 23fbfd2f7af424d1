//! The way to node agents.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::http::body::Body;
use crate::tasks::Tasks;

/// How long a connection to a node may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the agent of a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The node's name.
    pub node: String,
    /// An address, or a host name.
    pub host: String,
    /// The port of its HTTPS server.
    pub port: u16,
}

/// Why a node agent gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// It cannot be reached.
    #[error("dial tcp {address}: {source}")]
    Connect {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It was reached and gave no HTTP answer.
    #[error("request failed: {0}")]
    Request(String),
}

/// Sends requests of the API server to node agents: logs now, more to come. The answer's body is streamed.
#[async_trait]
pub trait NodeConnector: Send + Sync + Debug + 'static {
    /// GET of a path with its query. `headers` are those of the client's request.
    ///
    /// # Errors
    /// When no answer came. An answer of any status is no error.
    async fn get(
        &self,
        node: &Endpoint,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, NodeError>;
}

/// Reaches node agents over HTTPS, with the API server's client certificate: one connection a request.
pub struct HttpsConnector {
    tls: TlsConnector,
    tasks: Tasks,
}

impl Debug for HttpsConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpsConnector").finish_non_exhaustive()
    }
}

impl HttpsConnector {
    /// With this configuration, whose certificates node agents accept and which trusts theirs.
    #[must_use]
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        Self {
            tls: TlsConnector::from(tls),
            tasks: Tasks::new(),
        }
    }

    async fn connect(
        &self,
        node: &Endpoint,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, NodeError> {
        let address = format!("{}:{}", node.host, node.port);
        let failed = |source| NodeError::Connect {
            address: address.clone(),
            source,
        };
        let name =
            ServerName::try_from(node.host.clone()).map_err(|error| failed(std::io::Error::other(error)))?;
        let connecting = async {
            let stream = TcpStream::connect((node.host.as_str(), node.port)).await?;
            stream.set_nodelay(true)?;
            self.tls.connect(name, stream).await
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(failed),
            Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
        }
    }
}

#[async_trait]
impl NodeConnector for HttpsConnector {
    async fn get(
        &self,
        node: &Endpoint,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, NodeError> {
        let failed = |error: &dyn std::fmt::Display| NodeError::Request(error.to_string());
        let stream = self.connect(node).await?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
        self.tasks.spawn(|stop| async move {
            tokio::select! {
                () = stop.cancelled() => (),
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "connection to a node agent ended");
                },
            }
        });
        let mut request = Request::builder()
            .uri(path)
            .header(HOST, format!("{}:{}", node.host, node.port));
        if let Some(accept) = headers.get(ACCEPT) {
            request = request.header(ACCEPT, accept);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| failed(&error))?;
        Ok(response.map(|body| stream_of(body, sender)))
    }
}

/// The chunks of a body as they come. The sender is kept with them: without it the connection would close.
fn stream_of<B, S>(body: B, sender: S) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    S: Send + 'static,
{
    let chunks = futures::stream::unfold((Box::pin(body), sender), |(mut body, sender)| async move {
        loop {
            match body.as_mut().frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some((data, (body, sender)));
                    }
                }
                Err(_) => return None,
            }
        }
    });
    Body::stream(chunks)
}
