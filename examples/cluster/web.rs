//! The demo's web server: answers every request with the name of the pod that it runs in.
//!
//! The cluster example is also this program: called by the name `web`, as the embedded runtime does for
//! `/orch/bin/web`, it serves instead of starting a cluster.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// How long it goes on answering after SIGTERM: requests that were on their way when the pod left the Service.
const DRAIN: Duration = Duration::from_secs(1);

/// Serves until SIGTERM. Arguments: `--port PORT`.
pub(crate) fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => 8080,
        (Some("--port"), Some(port)) => port.parse().context("--port takes a number from 0 to 65535")?,
        _ => anyhow::bail!("usage: web [--port PORT]"),
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(port))
}

async fn serve(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port))
        .await
        .with_context(|| format!("port {port}"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = std::env::var("POD_NAME")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_default();
    eprintln!("{name} listens on port {port}");
    let mut connections = JoinSet::new();
    let stop = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tokio::time::sleep(DRAIN).await;
    };
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let name = name.clone();
                connections.spawn(async move {
                    let service = service_fn(move |_: Request<_>| {
                        let answer = Full::new(Bytes::from(format!("{name}\n")));
                        async move { Ok::<_, Infallible>(Response::new(answer)) }
                    });
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
