//! A cluster whose members are hosts of their own, so that a network can part them. Needs root.

use std::time::Duration;

use crate::faults::check;
use crate::server::{CURRENT, Cluster, Plan, Server, run};

/// Three hosts on a bridge, which ends with the test.
struct Network {
    bridge: String,
    hosts: Vec<String>,
    subnet: String,
}

impl Network {
    fn new() -> Self {
        let id = std::process::id() % 10_000;
        let mut network = Self {
            bridge: format!("orchst{id}"),
            hosts: Vec::new(),
            subnet: format!("10.231.{}", id % 250),
        };
        let (bridge, gateway) = (network.bridge.clone(), format!("{}.1/24", network.subnet));
        run("ip", &["link", "add", &bridge, "type", "bridge"]);
        run("ip", &["address", "add", &gateway, "dev", &bridge]);
        run("ip", &["link", "set", &bridge, "up"]);
        for index in 0..3 {
            let host = format!("{bridge}-{index}");
            let (outer, inner) = (format!("oe{id}h{index}"), "eth0");
            run("ip", &["netns", "add", &host]);
            network.hosts.push(host.clone());
            run(
                "ip",
                &[
                    "link", "add", &outer, "type", "veth", "peer", "name", inner, "netns", &host,
                ],
            );
            run("ip", &["link", "set", &outer, "master", &bridge, "up"]);
            let address = format!("{}/24", network.address(index));
            run("ip", &["-n", &host, "address", "add", &address, "dev", inner]);
            run("ip", &["-n", &host, "link", "set", inner, "up"]);
            run("ip", &["-n", &host, "link", "set", "lo", "up"]);
        }
        network
    }

    fn address(&self, index: usize) -> String {
        format!("{}.{}", self.subnet, 11 + index)
    }

    /// What a host sends to the others is lost. Clients still reach it.
    fn part(&self, index: usize) {
        self.routes(index, "add");
    }

    fn heal(&self, index: usize) {
        self.routes(index, "del");
    }

    fn routes(&self, index: usize, action: &str) {
        for other in (0..3).filter(|other| *other != index) {
            let other = format!("{}/32", self.address(other));
            run(
                "ip",
                &["-n", &self.hosts[index], "route", action, "blackhole", &other],
            );
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &self.hosts {
            run("ip", &["netns", "delete", host]);
        }
        run("ip", &["link", "delete", &self.bridge]);
    }
}

/// A cluster on hosts of its own. The members end before the network does.
struct Parted {
    cluster: Cluster,
    network: Network,
}

impl Parted {
    async fn start() -> Self {
        let network = Network::new();
        let url = |index: usize, port: u16| format!("http://{}:{port}", network.address(index));
        let members: Vec<_> = (0..3)
            .map(|index| format!("m{index}={}", url(index, 2380)))
            .collect();
        let servers = (0..3).map(|index| {
            Server::start(Plan {
                program: CURRENT,
                name: format!("m{index}"),
                client_url: url(index, 2379),
                peer_url: url(index, 2380),
                cluster: members.join(","),
                arguments: Vec::new(),
                within: ["ip", "netns", "exec", &network.hosts[index]]
                    .map(String::from)
                    .to_vec(),
            })
        });
        let cluster = Cluster {
            members: servers.collect(),
        };
        for member in &cluster.members {
            member.wait().await;
        }
        Self { cluster, network }
    }
}

/// The member that the store talks to, be it the leader or not, is alone for a while: it can neither confirm reads nor
/// take writes, and knows nothing new for watchers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_parted_from_the_others_misleads_nobody() {
    let parted = Parted::start().await;
    let options = parted.cluster.options();
    check(parted, options, |parted| async move {
        let parted = parted.lock().await;
        let leader = parted.cluster.leader(&[0, 1, 2]).await;
        for index in [0, leader] {
            parted.network.part(index);
            tokio::time::sleep(Duration::from_secs(3)).await;
            parted.network.heal(index);
        }
    })
    .await;
}
