//! The pod network: a bridge on the host, and for each pod a veth pair whose far end is `eth0` in the pod's namespace.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use futures::TryStreamExt;
use nix::libc;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::masquerade::Masquerade;
use crate::runtime::{Result, RuntimeError};

/// The interface inside a pod.
const POD_INTERFACE: &str = "eth0";

/// The host's side of the pod network.
#[derive(Debug)]
pub(super) struct PodNetwork {
    handle: Handle,
    bridge: String,
    masquerade: Masquerade,
    /// The pods' ends on the bridge. Held while the bridge is made or removed; it exists while there are any.
    attached: Mutex<BTreeSet<String>>,
}

/// A pod's place in the network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attachment {
    pub(super) address: IpAddr,
    pub(super) gateway: IpAddr,
    pub(super) prefix: u8,
}

/// The first eight hexadecimal digits of a text's hash, for names in the kernel.
pub(super) fn short_hash(text: &[u8]) -> String {
    Sha256::digest(text)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl PodNetwork {
    pub(super) fn new(handle: Handle, bridge: String, masquerade: Masquerade) -> Self {
        Self {
            handle,
            bridge,
            masquerade,
            attached: Mutex::default(),
        }
    }

    /// Connects a pod's network namespace; `inside` is a connection to the kernel from within it.
    pub(super) async fn attach(
        &self,
        veth: &str,
        netns: &OwnedFd,
        inside: &Handle,
        pod: Attachment,
    ) -> Result<()> {
        let bridge = self.ensure_bridge(veth, pod.gateway, pod.prefix).await?;
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(POD_INTERFACE)
            .setns_by_fd(netns.as_raw_fd());
        let peer = match mac_of(pod.address) {
            Some(mac) => peer.address(mac),
            None => peer,
        };
        let link = LinkMessageBuilder::<LinkVeth>::new(veth, POD_INTERFACE)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
            .controller(bridge)
            .up()
            .build();
        self.handle
            .link()
            .add(link)
            .execute()
            .await
            .map_err(failed("create the veth pair"))?;
        // A pod reaches itself through a Service: its packets come back out of the port they came in by.
        let index = index_of(&self.handle, veth)
            .await?
            .ok_or_else(|| network("the veth pair vanished"))?;
        let port = LinkBridgePort::new(index).hairpin(true).build();
        self.handle
            .link()
            .set_port(port)
            .execute()
            .await
            .map_err(failed("set the bridge port"))?;
        configure_pod(inside, pod).await
    }

    /// Translates a pod CIDR's addresses at once if pods are there that may have them, from an earlier process. The first
    /// pod of an empty bridge brings it about itself.
    pub(super) async fn cidr_is(&self, gateway: IpAddr, prefix: u8) -> Result<()> {
        let attached = self.attached.lock().await;
        if attached.is_empty() {
            return Ok(());
        }
        self.masquerade.add(gateway, prefix).await
    }

    /// Takes note of a pod that was attached by an earlier process.
    pub(super) async fn adopt(&self, veth: &str) {
        self.attached.lock().await.insert(veth.to_owned());
    }

    /// Removes a pod's veth pair, and the bridge with the last one; absent ones are no error.
    pub(super) async fn detach(&self, veth: &str) -> Result<()> {
        self.remove_link(veth).await?;
        let mut attached = self.attached.lock().await;
        attached.remove(veth);
        if attached.is_empty() {
            self.remove_link(&self.bridge).await?;
            self.masquerade.remove().await?;
        }
        Ok(())
    }

    async fn remove_link(&self, name: &str) -> Result<()> {
        match index_of(&self.handle, name).await? {
            Some(index) => ignore(self.handle.link().del(index).execute().await, libc::ENODEV)
                .map_err(failed("remove an interface")),
            None => Ok(()),
        }
    }

    /// Makes the bridge what it should be. One that is there may be half made, by a process that was killed, or may have
    /// the gateway of another pod CIDR only: pods of both may live, so a bridge keeps all its addresses.
    async fn ensure_bridge(&self, veth: &str, gateway: IpAddr, prefix: u8) -> Result<u32> {
        let mut attached = self.attached.lock().await;
        attached.insert(veth.to_owned());
        enable_forwarding(gateway)?;
        let index = match index_of(&self.handle, &self.bridge).await? {
            Some(index) => self.bring_up(index).await?,
            None => self.create_bridge().await?,
        };
        let added = self.handle.address().add(index, gateway, prefix).execute().await;
        ignore(added, libc::EEXIST).map_err(failed("give the bridge its address"))?;
        self.masquerade.add(gateway, prefix).await?;
        Ok(index)
    }

    async fn bring_up(&self, bridge: u32) -> Result<u32> {
        let up = LinkUnspec::new_with_index(bridge).up().build();
        let set = self.handle.link().set(up).execute().await;
        set.map_err(failed("bring up the bridge"))?;
        Ok(bridge)
    }

    async fn create_bridge(&self) -> Result<u32> {
        let link = LinkBridge::new(&self.bridge).up().build();
        let added = self.handle.link().add(link).execute().await;
        added.map_err(failed("create the bridge"))?;
        index_of(&self.handle, &self.bridge)
            .await?
            .ok_or_else(|| network("the bridge vanished"))
    }
}

/// Brings up the interfaces inside a pod's namespace.
async fn configure_pod(inside: &Handle, pod: Attachment) -> Result<()> {
    bring_up_loopback(inside).await?;
    let index = index_of(inside, POD_INTERFACE)
        .await?
        .ok_or_else(|| network("the pod's interface vanished"))?;
    let up = LinkUnspec::new_with_index(index).up().build();
    inside
        .link()
        .set(up)
        .execute()
        .await
        .map_err(failed("bring up the pod's interface"))?;
    inside
        .address()
        .add(index, pod.address, pod.prefix)
        .execute()
        .await
        .map_err(failed("give the pod its address"))?;
    let route = match pod.gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .gateway(gateway)
            .build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .gateway(gateway)
            .build(),
    };
    inside
        .route()
        .add(route)
        .execute()
        .await
        .map_err(failed("set the pod's default route"))
}

pub(super) async fn bring_up_loopback(inside: &Handle) -> Result<()> {
    let up = LinkUnspec::new_with_index(1).up().build();
    inside
        .link()
        .set(up)
        .execute()
        .await
        .map_err(failed("bring up the loopback interface"))
}

async fn index_of(handle: &Handle, name: &str) -> Result<Option<u32>> {
    let mut links = handle.link().get().match_name(name).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error) if code(&error) == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(failed("look up an interface")(error)),
    }
}

/// A hardware address made from the pod's IPv4 address, so that no neighbour keeps a stale one when it is used again.
fn mac_of(address: IpAddr) -> Option<Vec<u8>> {
    match address {
        IpAddr::V4(v4) => Some([&[0x0a, 0x58], v4.octets().as_slice()].concat()),
        IpAddr::V6(_) => None,
    }
}

fn enable_forwarding(gateway: IpAddr) -> Result<()> {
    let file = if gateway.is_ipv4() {
        "/proc/sys/net/ipv4/ip_forward"
    } else {
        "/proc/sys/net/ipv6/conf/all/forwarding"
    };
    let enabled = std::fs::read_to_string(file).is_ok_and(|value| value.trim() == "1");
    if enabled {
        Ok(())
    } else {
        std::fs::write(file, "1").map_err(RuntimeError::io(format!("enable {file}")))
    }
}

fn network(message: &str) -> RuntimeError {
    RuntimeError::Network(message.into())
}

fn failed(step: &'static str) -> impl FnOnce(rtnetlink::Error) -> RuntimeError {
    move |error| RuntimeError::Network(format!("{step}: {error}"))
}

fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

fn ignore(result: Result<(), rtnetlink::Error>, errno: i32) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if code(&error) == Some(errno) => Ok(()),
        other => other,
    }
}
