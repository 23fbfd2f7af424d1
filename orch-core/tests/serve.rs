//! The listener against real sockets: certificates, both protocols, upgrades, and the end.

#![allow(clippy::unwrap_used, reason = "tests end where they fail")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use orch_core::pki::{self, CertificateAuthority, ClientCertificates, Credential, Leaf};
use orch_core::serve::{Peer, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Answers with the client's user; `/wait` never answers; `/upgrade` echoes.
async fn answer(peer: Peer, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    match request.uri().path() {
        "/wait" => std::future::pending().await,
        "/upgrade" => {
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(request).await.unwrap();
                let mut io = TokioIo::new(upgraded);
                let mut word = [0; 4];
                io.read_exact(&mut word).await.unwrap();
                io.write_all(&word).await.unwrap();
            });
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
                .headers_mut()
                .insert("connection", "upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "echo".parse().unwrap());
            Ok(response)
        }
        _ => {
            let user = peer.certificates.first().map(|der| pki::subject(der).unwrap());
            let user = user
                .and_then(|subject| subject.common_name)
                .unwrap_or("nobody".into());
            Ok(Response::new(Full::new(Bytes::from(user))))
        }
    }
}

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(tls: Option<Arc<rustls::ServerConfig>>) -> Running {
    let mut server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    server = server.limits(|limits| limits.grace = Duration::from_millis(50));
    if let Some(tls) = tls {
        server = server.tls(tls);
    }
    let address = server.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let make = |peer: Peer| hyper::service::service_fn(move |request| answer(peer.clone(), request));
    let task = tokio::spawn(server.run(make, shutdown.clone()));
    Running {
        address,
        shutdown,
        task,
    }
}

fn certificates() -> (CertificateAuthority, Arc<rustls::ServerConfig>) {
    let ca = CertificateAuthority::create("test").unwrap();
    let server = ca.issue(&Leaf::server("server", ["localhost"])).unwrap();
    let config = pki::server_config(
        &server,
        Some((ca.certificate_pem(), ClientCertificates::Optional)),
    )
    .unwrap();
    (ca, config)
}

async fn connect(
    address: SocketAddr,
    ca: &CertificateAuthority,
    identity: Option<&Credential>,
    protocol: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut config = pki::client_config(ca.certificate_pem(), identity).unwrap();
    config.alpn_protocols = vec![protocol.into()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await?;
    connector.connect("localhost".try_into().unwrap(), stream).await
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}"))
        .body(Empty::new())
        .unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate_over_http2() {
    let (ca, config) = certificates();
    let server = start(Some(config)).await;
    let admin = ca
        .issue(&Leaf::client("kubernetes-admin", Some("system:masters")))
        .unwrap();
    let tls = connect(server.address, &ca, Some(&admin), "h2").await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let response = client.send_request(get("/")).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(text(response).await, "kubernetes-admin");
    drop(client);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_has_no_certificate_is_nobody_over_http1() {
    let (ca, config) = certificates();
    let server = start(Some(config)).await;
    let tls = connect(server.address, &ca, None, "http/1.1").await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
        .await
        .unwrap();
    let _connection = tokio::spawn(connection);
    assert_eq!(text(client.send_request(get("/")).await.unwrap()).await, "nobody");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (ca, config) = certificates();
    let server = start(Some(config)).await;
    let other = CertificateAuthority::create("test").unwrap();
    let forged = other
        .issue(&Leaf::client("kubernetes-admin", Some("system:masters")))
        .unwrap();
    // With TLS 1.3 the refusal arrives with the first read.
    let result = async {
        let tls = connect(server.address, &ca, Some(&forged), "http/1.1").await?;
        let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(std::io::Error::other)?;
        let _connection = tokio::spawn(connection);
        client.send_request(get("/")).await.map_err(std::io::Error::other)
    };
    result.await.unwrap_err();
}

#[tokio::test]
async fn a_plain_connection_can_be_upgraded() {
    let server = start(None).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let _connection = tokio::spawn(connection.with_upgrades());
    let mut request = get("/upgrade");
    request
        .headers_mut()
        .insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "echo".parse().unwrap());
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(b"ping").await.unwrap();
    let mut word = [0; 4];
    io.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ping");
}

#[tokio::test]
async fn stopping_ends_open_requests_and_frees_the_port() {
    let (ca, config) = certificates();
    let server = start(Some(config)).await;
    let tls = connect(server.address, &ca, None, "h2").await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .unwrap();
    let _connection = tokio::spawn(connection);
    let mut second = client.clone();
    let waiting = tokio::spawn(async move { client.send_request(get("/wait")).await });
    // An answered request behind it shows that the first has arrived.
    text(second.send_request(get("/")).await.unwrap()).await;
    server.shutdown.cancel();
    server.task.await.unwrap();
    waiting.await.unwrap().unwrap_err();
    TcpStream::connect(server.address).await.unwrap_err();
}

#[tokio::test]
async fn dropping_the_server_closes_its_connections() {
    let server = start(None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    tokio::task::yield_now().await;
    server.task.abort();
    let mut rest = Vec::new();
    // An orderly end or a reset, as the kernel likes.
    if let Ok(n) = stream.read_to_end(&mut rest).await {
        assert_eq!(n, 0);
    }
}
