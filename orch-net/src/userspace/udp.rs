//! UDP: datagrams of one client are one flow, to one endpoint, until they cease.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Service;
use super::socket::{Datagrams, Parties};

/// Datagrams are at most this long.
const LARGEST: usize = 64 * 1024;
/// Flows of one frontend; a datagram of one client more is lost.
const MOST_FLOWS: usize = 8192;

type Flows = Mutex<HashMap<Parties, Arc<Flow>>>;

#[derive(Debug)]
struct Flow {
    endpoint: SocketAddr,
    socket: UdpSocket,
    /// Set by each datagram of the client, cleared when the flow looks whether it is idle.
    used: AtomicBool,
}

/// Receives until dropped. Flows end when they are idle, and with the frontend.
pub(super) async fn serve(datagrams: Datagrams, service: Arc<Service>) {
    let datagrams = Arc::new(datagrams);
    let flows: Arc<Flows> = Arc::default();
    let mut buffer = vec![0; LARGEST];
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let (length, parties) = match datagrams.receive(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An answer that could not be delivered is reported here; it concerns one client.
                tracing::trace!(service = %service.key, %error, "receive failed");
                tokio::task::yield_now().await;
                continue;
            }
        };
        if let Err(error) = forward(
            &buffer[..length],
            parties,
            &service,
            &datagrams,
            &flows,
            &mut tasks,
        )
        .await
        {
            tracing::debug!(service = %service.key, client = %parties.client, %error, "datagram lost");
        }
    }
}

async fn forward(
    bytes: &[u8],
    parties: Parties,
    service: &Arc<Service>,
    datagrams: &Arc<Datagrams>,
    flows: &Arc<Flows>,
    tasks: &mut tokio::task::JoinSet<()>,
) -> io::Result<()> {
    let known = flows.lock().get(&parties).cloned();
    if let Some(flow) = known
        && service.balancer.serves(flow.endpoint)
        && flow.socket.send(bytes).await.is_ok()
    {
        flow.used.store(true, Ordering::Relaxed);
        return Ok(());
    }
    let inside = service.is_inside(parties.client.ip(), parties.local);
    let candidates = service
        .balancer
        .candidates(&service.frontend, parties.client.ip(), inside);
    let mut last = io::Error::new(io::ErrorKind::ConnectionRefused, "the policy leaves no endpoint");
    for endpoint in candidates {
        match open(endpoint, bytes).await {
            Ok(socket) => {
                let flow = Arc::new(Flow {
                    endpoint,
                    socket,
                    used: AtomicBool::new(true),
                });
                if !admit(flows, parties, &flow) {
                    return Err(io::Error::other("too many flows"));
                }
                service.balancer.remember(parties.client.ip(), endpoint);
                tasks.spawn(answer(
                    flow,
                    parties,
                    service.clone(),
                    datagrams.clone(),
                    flows.clone(),
                ));
                return Ok(());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn admit(flows: &Flows, parties: Parties, flow: &Arc<Flow>) -> bool {
    let mut flows = flows.lock();
    if flows.len() >= MOST_FLOWS && !flows.contains_key(&parties) {
        return false;
    }
    flows.insert(parties, flow.clone());
    true
}

async fn open(endpoint: SocketAddr, bytes: &[u8]) -> io::Result<UdpSocket> {
    let any: SocketAddr = match endpoint {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(endpoint).await?;
    socket.send(bytes).await?;
    Ok(socket)
}

/// Carries answers back until neither side has sent anything for the idle time, or the endpoint refuses.
async fn answer(
    flow: Arc<Flow>,
    parties: Parties,
    service: Arc<Service>,
    datagrams: Arc<Datagrams>,
    flows: Arc<Flows>,
) {
    let mut buffer = vec![0; LARGEST];
    loop {
        match timeout(service.config.udp_idle, flow.socket.recv(&mut buffer)).await {
            Ok(Ok(length)) => {
                if let Err(error) = datagrams.send(&buffer[..length], parties).await {
                    tracing::trace!(client = %parties.client, %error, "answer lost");
                }
            }
            Ok(Err(_)) => break,
            Err(_) if flow.used.swap(false, Ordering::Relaxed) => {}
            Err(_) => break,
        }
    }
    let mut flows = flows.lock();
    if flows
        .get(&parties)
        .is_some_and(|current| Arc::ptr_eq(current, &flow))
    {
        flows.remove(&parties);
    }
}
