//! A small cluster of namespaces: a node with a bridge of pods, another node, and an outsider.
//!
//! ```text
//!   client 10.244.0.10 ─┐
//!   web-1  10.244.0.2  ─┤ br0 10.244.0.1   NODE ── 192.168.77.0/24 ── web-3 10.244.1.2 (other node)
//!   web-2  10.244.0.3  ─┘                       └─ 192.168.99.0/24 ── outsider 192.168.99.2
//! ```
//!
//! Where the kernel speaks IPv6, each address has a twin by [`six`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rtnetlink::{Error, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::namespace::Namespace;
use crate::netlink::Netlink;

/// The bridge's address and the pods' gateway.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// The pod that sends requests.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 10);
/// The endpoints: two pods of the node and one of another node.
pub(super) const ENDPOINTS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 244, 0, 2),
    Ipv4Addr::new(10, 244, 0, 3),
    Ipv4Addr::new(10, 244, 1, 2),
];
/// The node's address on the outsider's network.
pub(super) const NODE_OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 99, 1);
/// The outsider.
pub(super) const OUTSIDER: Ipv4Addr = Ipv4Addr::new(192, 168, 99, 2);
const NODE_INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const OTHER_NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);

/// The IPv6 twin of an address: `10.244.0.2` and `fd00:a:f4:0::2`.
pub(super) fn six(ip: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = ip.octets().map(u16::from);
    Ipv6Addr::new(0xfd00, a, b, c, 0, 0, 0, d)
}

/// Whether the kernel speaks IPv6.
pub(super) fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// The prefix of a twin: what is a network for one is one for the other.
fn six_prefix(prefix: u8) -> u8 {
    if prefix == 32 { 128 } else { 64 }
}

/// Gives an address and its twin to a link.
async fn give(netlink: &Netlink, link: u32, ip: Ipv4Addr, prefix: u8) -> Result<(), Error> {
    netlink.add_address(link, IpAddr::V4(ip), prefix).await?;
    if has_ipv6() {
        netlink
            .add_address(link, IpAddr::V6(six(ip)), six_prefix(prefix))
            .await?;
    }
    Ok(())
}

/// The namespaces, wired up.
#[derive(Debug)]
pub struct Topology {
    /// The node, where the backend runs.
    pub node: Arc<Namespace>,
    /// A pod of the node that is no endpoint.
    pub client: Namespace,
    /// The endpoints' pods, in the order of their addresses.
    pub endpoints: Vec<Namespace>,
    /// A host that is neither node nor pod.
    pub outsider: Namespace,
}

impl Topology {
    /// Makes the namespaces. `bridge_netfilter` is the node's `net.bridge.bridge-nf-call-iptables`.
    ///
    /// # Errors
    /// If the process may not: it takes root.
    pub async fn new(bridge_netfilter: bool) -> io::Result<Self> {
        let topology = Self {
            node: Arc::new(Namespace::new("node")?),
            client: Namespace::new("client")?,
            endpoints: vec![
                Namespace::new("web-1")?,
                Namespace::new("web-2")?,
                Namespace::new("web-3")?,
            ],
            outsider: Namespace::new("outsider")?,
        };
        topology.node.run(move || node(bridge_netfilter)).await?;
        let pods = [
            (&topology.client, CLIENT),
            (&topology.endpoints[0], ENDPOINTS[0]),
            (&topology.endpoints[1], ENDPOINTS[1]),
        ];
        for (namespace, ip) in pods {
            topology.wire(namespace, None).await?;
            namespace.run(move || host(ip, 24, GATEWAY)).await?;
        }
        topology.wire(&topology.endpoints[2], Some(NODE_INSIDE)).await?;
        topology.endpoints[2].run(other_node).await?;
        topology.wire(&topology.outsider, Some(NODE_OUTSIDE)).await?;
        topology
            .outsider
            .run(move || host(OUTSIDER, 24, NODE_OUTSIDE))
            .await?;
        topology.node.run(node_routes).await?;
        Ok(topology)
    }

    /// The address of an endpoint's pod, by its index.
    ///
    /// # Panics
    /// If there is no such endpoint.
    #[must_use]
    pub fn endpoint_ip(&self, index: usize) -> Ipv4Addr {
        ENDPOINTS[index]
    }

    /// Lays a cable from the node to `namespace`: into the bridge, or with an address of its own at the node's end.
    async fn wire(&self, namespace: &Namespace, address: Option<Ipv4Addr>) -> io::Result<()> {
        let (fd, name) = (namespace.fd(), format!("v-{}", namespace.name()));
        self.node
            .run(move || async move { cable(&name, fd, address).await.map_err(io::Error::other) })
            .await
    }
}

async fn cable(name: &str, fd: i32, address: Option<Ipv4Addr>) -> Result<(), Error> {
    let netlink = Netlink::open().map_err(|_| Error::RequestFailed)?;
    netlink.add_link(LinkVeth::new(name, "eth0").build()).await?;
    let peer = index(&netlink, "eth0").await?;
    netlink
        .handle()
        .link()
        .set(LinkUnspec::new_with_index(peer).setns_by_fd(fd).build())
        .execute()
        .await?;
    let mine = index(&netlink, name).await?;
    if let Some(address) = address {
        give(&netlink, mine, address, 24).await?;
    } else {
        let bridge = index(&netlink, "br0").await?;
        netlink
            .handle()
            .link()
            .set(LinkUnspec::new_with_index(mine).controller(bridge).build())
            .execute()
            .await?;
        // As CNI plug-ins do: with bridge netfilter, a pod that reaches itself through a Service leaves by the port it came from.
        netlink
            .handle()
            .link()
            .set_port(LinkBridgePort::new(mine).hairpin(true).build())
            .execute()
            .await?;
    }
    netlink.set_up(mine).await
}

async fn index(netlink: &Netlink, name: &str) -> Result<u32, Error> {
    netlink.link(name).await?.ok_or(Error::RequestFailed)
}

async fn node(bridge_netfilter: bool) -> io::Result<()> {
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    if has_ipv6() {
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    }
    let wanted = if bridge_netfilter { "1" } else { "0" };
    for path in [
        "/proc/sys/net/bridge/bridge-nf-call-iptables",
        "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
    ] {
        if std::path::Path::new(path).exists() {
            std::fs::write(path, wanted)?;
        } else if bridge_netfilter {
            return Err(io::Error::other(
                "this kernel has no bridge netfilter: modprobe br_netfilter",
            ));
        }
    }
    let netlink = Netlink::open()?;
    let made = async {
        netlink.add_link(LinkBridge::new("br0").build()).await?;
        let bridge = index(&netlink, "br0").await?;
        give(&netlink, bridge, GATEWAY, 24).await
    };
    made.await.map_err(io::Error::other)
}

/// The other node's pods, and a default route, by which connections to cluster IPs get as far as the rules.
async fn node_routes() -> io::Result<()> {
    route(Some((Ipv4Addr::new(10, 244, 1, 0), 24)), OTHER_NODE).await?;
    route(None, OUTSIDER).await
}

async fn host(ip: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> io::Result<()> {
    address("eth0", ip, prefix).await?;
    route(None, gateway).await
}

async fn other_node() -> io::Result<()> {
    host(OTHER_NODE, 24, NODE_INSIDE).await?;
    address("lo", ENDPOINTS[2], 32).await
}

async fn address(link: &str, ip: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let netlink = Netlink::open()?;
    let added = async {
        let index = index(&netlink, link).await?;
        netlink.set_up(index).await?;
        give(&netlink, index, ip, prefix).await
    };
    added.await.map_err(io::Error::other)
}

async fn route(to: Option<(Ipv4Addr, u8)>, gateway: Ipv4Addr) -> io::Result<()> {
    let netlink = Netlink::open()?;
    let mut route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway);
    if let Some((network, prefix)) = to {
        route = route.destination_prefix(network, prefix);
    }
    if has_ipv6() {
        let mut twin = RouteMessageBuilder::<Ipv6Addr>::new().gateway(six(gateway));
        if let Some((network, prefix)) = to {
            twin = twin.destination_prefix(six(network), six_prefix(prefix));
        }
        let added = netlink.handle().route().add(twin.build()).execute().await;
        added.map_err(io::Error::other)?;
    }
    netlink
        .handle()
        .route()
        .add(route.build())
        .execute()
        .await
        .map_err(io::Error::other)
}
