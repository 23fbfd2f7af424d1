//! TCP: a connection to a frontend becomes one to an endpoint.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::Service;

/// The buffer of each direction of a connection.
const BUFFER: usize = 32 * 1024;

/// Accepts until dropped. Connections are tasks of their own, which go on when the frontend is gone.
pub(super) async fn serve(listener: TcpListener, service: Arc<Service>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let service = service.clone();
                let closing = service.closing.clone();
                service.connections.clone().spawn(async move {
                    tokio::select! {
                        () = closing.cancelled() => {}
                        () = carry(stream, client, &service) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(service = %service.key, %error, "accept failed");
                // Out of descriptors: wait for some to be closed.
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn carry(mut client: TcpStream, peer: SocketAddr, service: &Service) {
    let local = client.local_addr().map_or(peer.ip(), |local| local.ip());
    let inside = service.is_inside(peer.ip(), local);
    match connect(peer, inside, service).await {
        Ok(mut endpoint) => {
            // Which side failed does not matter: dropping both ends tells each.
            let copied =
                tokio::io::copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER).await;
            if let Err(error) = copied {
                tracing::trace!(service = %service.key, %peer, %error, "connection ended");
            }
        }
        Err(error) => {
            tracing::debug!(service = %service.key, %peer, %error, "no endpoint answers");
            // The client sees a reset, as it would from a refusing kernel, not an empty answer.
            if let Err(error) = client.set_zero_linger() {
                tracing::debug!(%error, "set linger");
            }
        }
    }
}

/// Connects to the first endpoint that answers, so that one which is gone but not yet reported costs no request.
async fn connect(peer: SocketAddr, inside: bool, service: &Service) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::ConnectionRefused, "the policy leaves no endpoint");
    for endpoint in service.balancer.candidates(&service.frontend, peer.ip(), inside) {
        match timeout(service.config.connect_timeout, TcpStream::connect(endpoint)).await {
            Ok(Ok(stream)) => {
                service.balancer.remember(peer.ip(), endpoint);
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(elapsed) => last = elapsed.into(),
        }
    }
    Err(last)
}
