//! What every backend must do with packets.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use serde_json::json;
use tokio::net::UdpSocket;

use super::kit::{
    DNS, Error, HTTP, Health, Kit, NODE_DNS, NODE_HTTP, Place, cluster, external, node_port, twin,
};
use super::topology::{CLIENT, OUTSIDER};
use super::traffic::{self, Denial};
use crate::backend::ProxyBackend;
use crate::model::Changes;

type Outcome = Result<(), Error>;
type Case = for<'a> fn(&'a mut Kit) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

macro_rules! cases {
    ($($name:literal => $case:ident),+ $(,)?) => {
        pub(super) const ALL: &[(&str, Case)] = &[$(($name, |kit| Box::pin($case(kit)))),+];
    };
}

cases! {
    "a cluster IP answers pods, the node and outsiders" => cluster_ip_answers,
    "node ports and external IPs answer" => other_frontends_answer,
    "IPv6 is served as IPv4 is" => ipv6_answers,
    "connections are spread over all endpoints" => connections_are_spread,
    "a pod reaches itself through its Service" => hairpin,
    "each half of a connection closes by itself" => half_close,
    "large streams arrive whole" => large_streams,
    "a Service without endpoints is refused" => no_endpoints,
    "a port that the Service has not is refused" => foreign_port,
    "session affinity sticks and expires" => session_affinity,
    "internalTrafficPolicy Local" => internal_local,
    "externalTrafficPolicy Local" => external_local,
    "client addresses are kept where promised" => client_addresses,
    "serving terminating endpoints are the last resort" => draining_endpoints,
    "established connections outlive their endpoint's removal" => established_connections,
    "a UDP client moves on when its endpoint goes" => udp_moves_on,
    "no request fails while endpoints change" => change_under_load,
    "a deleted Service is not served" => deleted_service,
    "a restart adopts what is there" => restart,
    "damage is noticed and repaired" => damage,
}

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(message().into()) }
}

async fn cluster_ip_answers(kit: &mut Kit) -> Outcome {
    for endpoint in 0..3 {
        kit.serve(&[endpoint]).await?;
        for place in [Place::Client, Place::Node, Place::Outsider] {
            let expected = kit.namespace(Place::Endpoint(endpoint)).name().to_owned();
            let (tcp, udp) = (
                kit.ask(place, cluster(HTTP)).await?,
                kit.ask_udp(place, cluster(DNS)).await?,
            );
            ensure(tcp.server == expected && udp.server == expected, || {
                format!("{tcp:?}, {udp:?}, not {expected}")
            })?;
        }
    }
    Ok(())
}

async fn ipv6_answers(kit: &mut Kit) -> Outcome {
    if !kit.ipv6() {
        return Ok(());
    }
    for endpoint in 0..3 {
        kit.serve(&[endpoint]).await?;
        for place in [Place::Client, Place::Node, Place::Outsider] {
            let expected = kit.namespace(Place::Endpoint(endpoint)).name().to_owned();
            for to in [cluster(HTTP), node_port(place, NODE_HTTP), external(HTTP)] {
                let answer = kit.ask(place, twin(to)).await?;
                ensure(answer.server == expected, || {
                    format!("{answer:?}, not {expected}")
                })?;
            }
            kit.ask_udp(place, twin(cluster(DNS))).await?;
            kit.ask_udp(place, twin(node_port(place, NODE_DNS))).await?;
        }
    }
    kit.serve(&[0]).await?;
    kit.ask(Place::Endpoint(0), twin(cluster(HTTP))).await?;
    kit.serve(&[]).await?;
    let denial = kit.denied(Place::Client, twin(cluster(HTTP))).await?;
    ensure(denial == Denial::Refused, || {
        format!("without endpoints: {denial:?}")
    })
}

async fn other_frontends_answer(kit: &mut Kit) -> Outcome {
    kit.serve(&[0, 1, 2]).await?;
    for place in [Place::Client, Place::Node, Place::Outsider] {
        kit.ask(place, node_port(place, NODE_HTTP)).await?;
        kit.ask_udp(place, node_port(place, NODE_DNS)).await?;
        kit.ask(place, external(HTTP)).await?;
        kit.ask_udp(place, external(DNS)).await?;
    }
    Ok(())
}

/// 90 draws of three: fewer than 12 for one of them happens once in ten thousand runs to a fair choice.
async fn connections_are_spread(kit: &mut Kit) -> Outcome {
    kit.serve(&[0, 1, 2]).await?;
    for place in [Place::Client, Place::Node] {
        let spread = kit.spread(place, cluster(HTTP), 90).await?;
        ensure(
            spread.len() == 3 && spread.values().all(|count| *count >= 12),
            || format!("{place:?}: {spread:?}"),
        )?;
    }
    Ok(())
}

async fn hairpin(kit: &mut Kit) -> Outcome {
    kit.serve(&[0]).await?;
    let me = Place::Endpoint(0);
    for to in [cluster(HTTP), node_port(me, NODE_HTTP), external(HTTP)] {
        ensure(kit.ask(me, to).await?.server == "web-1", || {
            format!("{to}: somebody else answered")
        })?;
    }
    kit.ask_udp(me, cluster(DNS)).await.map(drop)
}

async fn half_close(kit: &mut Kit) -> Outcome {
    kit.serve(&[0, 2]).await?;
    for place in [Place::Client, Place::Node, Place::Outsider] {
        let connection = kit.open(place, cluster(HTTP)).await?;
        let rest = kit.namespace(place).run(move || connection.half_close()).await?;
        ensure(rest == "bye\n", || {
            format!("{place:?}: {rest:?} came after the end of file")
        })?;
    }
    Ok(())
}

async fn large_streams(kit: &mut Kit) -> Outcome {
    kit.serve(&[1]).await?;
    let mut connection = kit.open(Place::Client, cluster(HTTP)).await?;
    let echoed = kit.topology.client.run(move || async move {
        let bytes: Vec<u8> = (0..4_000_000u32)
            .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[2])
            .collect();
        connection.echo(&bytes).await
    });
    Ok(echoed.await?)
}

async fn no_endpoints(kit: &mut Kit) -> Outcome {
    kit.serve(&[]).await?;
    for place in [Place::Client, Place::Node, Place::Outsider] {
        for to in [cluster(HTTP), node_port(place, NODE_HTTP), external(HTTP)] {
            let denial = kit.denied(place, to).await?;
            ensure(denial == Denial::Refused, || {
                format!("{place:?} to {to}: {denial:?}")
            })?;
        }
    }
    kit.ready(&[0])?;
    kit.sync().await?;
    kit.ask(Place::Client, cluster(HTTP)).await.map(drop)
}

async fn foreign_port(kit: &mut Kit) -> Outcome {
    kit.serve(&[0]).await?;
    for place in [Place::Client, Place::Node] {
        let denial = kit.denied(place, cluster(81)).await?;
        ensure(denial == Denial::Refused, || format!("{place:?}: {denial:?}"))?;
    }
    Ok(())
}

async fn session_affinity(kit: &mut Kit) -> Outcome {
    let affinity = json!({
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 2}},
    });
    kit.serve_with(affinity, &[0, 1, 2]).await?;
    let first = kit.ask(Place::Client, cluster(HTTP)).await?.server;
    let spread = kit.spread(Place::Client, cluster(HTTP), 20).await?;
    ensure(spread.len() == 1 && spread.contains_key(&first), || {
        format!("first {first}, then {spread:?}")
    })?;

    // Another endpoint's change moves nobody; the own one's does.
    let mine: usize = (0..3)
        .find(|i| kit.topology.endpoints[*i].name() == first)
        .unwrap_or(0);
    kit.ready(&[mine, (mine + 1) % 3])?;
    kit.sync().await?;
    let spread = kit.spread(Place::Client, cluster(HTTP), 20).await?;
    ensure(spread.len() == 1 && spread.contains_key(&first), || {
        format!("{first} lost to {spread:?}")
    })?;
    kit.ready(&[(mine + 1) % 3])?;
    kit.sync().await?;
    ensure(
        kit.ask(Place::Client, cluster(HTTP)).await?.server != first,
        || format!("{first} is gone"),
    )?;

    // After the time-out the choice is free again: ten times the same among three is one in twenty thousand.
    kit.ready(&[0, 1, 2])?;
    kit.sync().await?;
    let mut seen = BTreeSet::new();
    for _ in 0..10 {
        seen.insert(kit.ask(Place::Client, cluster(HTTP)).await?.server);
        if seen.len() > 1 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2600)).await;
    }
    Err(format!("never left {seen:?}").into())
}

async fn internal_local(kit: &mut Kit) -> Outcome {
    kit.serve_with(json!({"internalTrafficPolicy": "Local"}), &[0, 2])
        .await?;
    for place in [Place::Client, Place::Node] {
        let spread = kit.spread(place, cluster(HTTP), 20).await?;
        ensure(spread.keys().eq(["web-1"]), || format!("{place:?}: {spread:?}"))?;
    }
    kit.ready(&[2])?;
    kit.sync().await?;
    kit.denied(Place::Client, cluster(HTTP)).await.map(drop)
}

async fn external_local(kit: &mut Kit) -> Outcome {
    kit.serve_with(json!({"externalTrafficPolicy": "Local"}), &[0, 2])
        .await?;
    for to in [node_port(Place::Outsider, NODE_HTTP), external(HTTP)] {
        let spread = kit.spread(Place::Outsider, to, 20).await?;
        ensure(spread.keys().eq(["web-1"]), || {
            format!("outsider to {to}: {spread:?}")
        })?;
    }
    let inside = node_port(Place::Client, NODE_HTTP);
    let spread = kit.spread(Place::Client, inside, 40).await?;
    ensure(spread.len() == 2, || {
        format!("pods are not bound by the policy: {spread:?}")
    })?;
    kit.ask(Place::Node, node_port(Place::Node, NODE_HTTP)).await?;

    kit.ready(&[2])?;
    kit.sync().await?;
    kit.denied(Place::Outsider, node_port(Place::Outsider, NODE_HTTP))
        .await?;
    kit.ask(Place::Client, inside).await.map(drop)
}

async fn client_addresses(kit: &mut Kit) -> Outcome {
    if !kit.expectations.keeps_client_address {
        return Ok(());
    }
    kit.serve_with(json!({"externalTrafficPolicy": "Local"}), &[0])
        .await?;
    let outside = kit
        .ask(Place::Outsider, node_port(Place::Outsider, NODE_HTTP))
        .await?;
    ensure(outside.saw == IpAddr::V4(OUTSIDER), || {
        format!("outsider seen as {}", outside.saw)
    })?;
    kit.serve(&[2]).await?;
    let pod = kit.ask(Place::Client, cluster(HTTP)).await?;
    ensure(pod.saw == IpAddr::V4(CLIENT), || {
        format!("pod seen as {}", pod.saw)
    })
}

async fn draining_endpoints(kit: &mut Kit) -> Outcome {
    kit.service(json!({}))?;
    kit.endpoints(&[(0, Health::Draining), (2, Health::Ready)])?;
    kit.sync().await?;
    let spread = kit.spread(Place::Client, cluster(HTTP), 20).await?;
    ensure(spread.keys().eq(["web-3"]), || {
        format!("while one is ready: {spread:?}")
    })?;
    kit.endpoints(&[(0, Health::Draining)])?;
    kit.sync().await?;
    let spread = kit.spread(Place::Client, cluster(HTTP), 5).await?;
    ensure(spread.keys().eq(["web-1"]), || {
        format!("when none is ready: {spread:?}")
    })
}

async fn established_connections(kit: &mut Kit) -> Outcome {
    kit.serve(&[0]).await?;
    let mut open = Vec::new();
    for place in [Place::Client, Place::Node, Place::Outsider] {
        open.push((place, kit.open(place, cluster(HTTP)).await?));
    }
    kit.ready(&[2])?;
    kit.sync().await?;
    for (place, mut connection) in open {
        let echoed = kit
            .namespace(place)
            .run(move || async move { connection.echo(b"still there").await });
        echoed
            .await
            .map_err(|error| format!("established from {place:?}: {error}"))?;
        let fresh = kit.ask(place, cluster(HTTP)).await?;
        ensure(fresh.server == "web-3", || {
            format!("new connection to {}", fresh.server)
        })?;
    }
    Ok(())
}

async fn udp_moves_on(kit: &mut Kit) -> Outcome {
    for place in [Place::Client, Place::Node] {
        for to in [cluster(DNS), node_port(place, NODE_DNS)] {
            kit.serve(&[0]).await?;
            let bound = kit.namespace(place).run(|| UdpSocket::bind("0.0.0.0:0")).await?;
            let socket = std::sync::Arc::new(bound);
            ensure(ask_from(kit, place, &socket, to).await?.server == "web-1", || {
                "not web-1".to_owned()
            })?;
            kit.ready(&[2])?;
            kit.sync().await?;
            let answer = ask_from(kit, place, &socket, to).await?;
            ensure(answer.server == "web-3", || {
                format!("{place:?} to {to}: still {}", answer.server)
            })?;
        }
    }
    Ok(())
}

async fn ask_from(
    kit: &Kit,
    place: Place,
    socket: &std::sync::Arc<UdpSocket>,
    to: SocketAddr,
) -> Result<traffic::Answer, Error> {
    let socket = socket.clone();
    let answer = kit
        .namespace(place)
        .run(move || async move { traffic::ask_from(&socket, to).await })
        .await;
    answer.map_err(|error| format!("UDP from {place:?} to {to}: {error}").into())
}

async fn change_under_load(kit: &mut Kit) -> Outcome {
    kit.serve(&[0]).await?;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut loads = Vec::new();
    for place in [Place::Client, Place::Node] {
        let stop = stop.clone();
        let (failed, outcome) = tokio::sync::oneshot::channel();
        kit.namespace(place)
            .run(move || async move {
                tokio::task::spawn_local(async move {
                    let mut served = 0;
                    let mut error = None;
                    while !stop.is_cancelled() && error.is_none() {
                        error = traffic::ask(cluster(HTTP)).await.err();
                        served += 1;
                    }
                    drop(failed.send((served, error)));
                });
            })
            .await;
        loads.push((place, outcome));
    }
    for round in 0..40 {
        let endpoints: &[usize] = [&[1][..], &[1, 2], &[0, 2], &[0, 1, 2]][round % 4];
        kit.ready(endpoints)?;
        kit.sync().await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    for (place, outcome) in loads {
        let (served, error) = outcome.await?;
        ensure(error.is_none() && served > 1, || {
            format!("{place:?}: request {served}: {error:?}")
        })?;
    }
    Ok(())
}

async fn deleted_service(kit: &mut Kit) -> Outcome {
    kit.serve(&[0]).await?;
    kit.delete_service();
    kit.sync().await?;
    nothing_answers(kit).await
}

async fn nothing_answers(kit: &Kit) -> Outcome {
    for place in [Place::Client, Place::Node, Place::Outsider] {
        for to in [cluster(HTTP), node_port(place, NODE_HTTP), external(HTTP)] {
            kit.denied(place, to).await?;
        }
    }
    Ok(())
}

async fn restart(kit: &mut Kit) -> Outcome {
    kit.serve(&[0, 1]).await?;
    let mut established = kit.open(Place::Client, cluster(HTTP)).await?;
    kit.kill().await;
    if kit.expectations.outlives_process {
        kit.ask(Place::Client, cluster(HTTP)).await?;
    }
    kit.ready(&[2])?;
    kit.start().await?;
    let fresh = kit.spread(Place::Client, cluster(HTTP), 5).await?;
    ensure(fresh.keys().eq(["web-3"]), || {
        format!("after the restart: {fresh:?}")
    })?;
    if kit.expectations.outlives_process {
        let echoed = kit
            .topology
            .client
            .run(move || async move { established.echo(b"still there").await });
        echoed.await.map_err(|error| format!("established: {error}"))?;
    }
    kit.kill().await;
    kit.delete_service();
    kit.start().await?;
    nothing_answers(kit).await
}

async fn damage(kit: &mut Kit) -> Outcome {
    let Some(damage) = kit.expectations.damage.clone() else {
        return Ok(());
    };
    kit.serve(&[0]).await?;
    ensure(
        kit.with_backend(async |backend: &mut dyn ProxyBackend| backend.intact().await)
            .await?,
        || "not intact after a sync".to_owned(),
    )?;
    kit.topology.node.run(move || async move { damage() }).await?;
    ensure(
        !kit.with_backend(async |backend: &mut dyn ProxyBackend| backend.intact().await)
            .await?,
        || "the damage was not noticed".to_owned(),
    )?;
    kit.sync_as(Changes::All).await?;
    kit.ask(Place::Client, cluster(HTTP)).await?;
    kit.ask(Place::Node, cluster(HTTP)).await.map(drop)
}

/// The last case: nothing is served after a clean-up, which may be repeated.
pub(super) async fn cleanup(kit: &mut Kit) -> Outcome {
    kit.reset().await?;
    kit.serve(&[0]).await?;
    for _ in 0..2 {
        kit.with_backend(async |backend: &mut dyn ProxyBackend| backend.cleanup().await)
            .await?;
    }
    kit.with_backend(async |backend: &mut dyn ProxyBackend| {
        backend.stop().await;
        Ok(())
    })
    .await?;
    nothing_answers(kit).await
}
