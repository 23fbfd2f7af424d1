//! Probe and lifecycle handlers: HTTP, TCP, a command in the container, a pause.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use crate::runtime::{ContainerId, Runtime, RuntimeError};

/// As much of an answer's body as is shown in an event.
const MAX_BODY: usize = 10 * 1024;

/// The container that a handler is for.
pub(crate) struct Target<'a> {
    pub(crate) runtime: &'a dyn Runtime,
    pub(crate) id: &'a ContainerId,
    pub(crate) container: &'a Container,
    pub(crate) ip: &'a str,
}

/// Runs a probe once. The error is what upstream's event says after `probe failed: `.
pub(crate) async fn probe(target: &Target<'_>, probe: &Probe) -> Result<(), String> {
    let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1).max(1)).unwrap_or(1));
    if let Some(exec) = &probe.exec {
        return command(target, exec.command.as_deref().unwrap_or_default(), timeout).await;
    }
    if let Some(get) = &probe.http_get {
        return http_get(target, get, timeout).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp
            .host
            .as_deref()
            .filter(|host| !host.is_empty())
            .unwrap_or(target.ip);
        let address = join(host, port(target.container, &tcp.port)?);
        return match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", reason(&error))),
            Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
        };
    }
    Err("the probe has no handler that is built into this agent".into())
}

/// Runs a lifecycle hook. The error is what upstream's event says.
pub(crate) async fn hook(
    target: &Target<'_>,
    handler: &LifecycleHandler,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        return command(target, exec.command.as_deref().unwrap_or_default(), timeout).await;
    }
    if let Some(get) = &handler.http_get {
        return http_get(target, get, timeout).await;
    }
    if let Some(sleep) = &handler.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds).min(timeout)).await;
        return Ok(());
    }
    Err("the lifecycle hook has no handler that is built into this agent".into())
}

async fn command(target: &Target<'_>, command: &[String], timeout: Duration) -> Result<(), String> {
    match target.runtime.exec_sync(target.id, command, timeout).await {
        Ok(answer) if answer.exit_code == 0 => Ok(()),
        Ok(answer) => {
            let output = [answer.stdout, answer.stderr].concat();
            let end = output.len().min(MAX_BODY);
            Err(String::from_utf8_lossy(&output[..end]).into_owned())
        }
        Err(RuntimeError::DeadlineExceeded(_)) => Err(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            timeout.as_secs()
        )),
        Err(error) => Err(error.to_string()),
    }
}

async fn http_get(target: &Target<'_>, get: &HTTPGetAction, timeout: Duration) -> Result<(), String> {
    let host = get
        .host
        .as_deref()
        .filter(|host| !host.is_empty())
        .unwrap_or(target.ip);
    let address = join(host, port(target.container, &get.port)?);
    let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let url = format!("http://{address}{path}");
    match tokio::time::timeout(timeout, request(&address, &path, get)).await {
        Ok(Ok(status)) if (200..400).contains(&status) => Ok(()),
        Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(error)) => Err(format!("Get {url:?}: {error}")),
        Err(_) => Err(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

async fn request(address: &str, path: &str, get: &HTTPGetAction) -> Result<u16, String> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| format!("dial tcp {address}: connect: {}", reason(&error)))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut request = Request::get(path);
    let own = get.http_headers.as_deref().unwrap_or_default();
    let has = |name: &str| own.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    for (name, value) in [
        ("host", address),
        ("user-agent", "kube-probe/1.37"),
        ("accept", "*/*"),
        ("connection", "close"),
    ] {
        if !has(name) {
            request = request.header(name, value);
        }
    }
    for header in own {
        request = request.header(&header.name, &header.value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        // The body is read so that the server can finish; what is in it does not matter.
        Limited::new(answer.into_body(), MAX_BODY).collect().await.ok();
        Ok(status)
    };
    tokio::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// A port by number or by the name that the container gives it.
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name));
            match named {
                Some(port) => port.container_port,
                None => name.parse().map_err(|_| format!("couldn't find port: {name}"))?,
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// An error in the words that Go has for it, which the events are known by.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        _ => error.to_string(),
    }
}
