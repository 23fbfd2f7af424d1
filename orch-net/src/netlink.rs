//! The kernel's links and addresses, over rtnetlink.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use orch_core::ipam::Cidr;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Error, Handle, LinkBridge, LinkDummy, RouteMessageBuilder};
use tokio::task::JoinHandle;

/// A connection to rtnetlink in the network namespace in which it was opened. Its task ends with it.
#[derive(Debug)]
pub(crate) struct Netlink {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            task: tokio::spawn(connection),
        })
    }

    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The index of the link of that name, if there is one.
    pub(crate) async fn link(&self, name: &str) -> Result<Option<u32>, Error> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match links.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a link that holds addresses and carries no packets, and returns its index.
    pub(crate) async fn add_holder(&self, name: &str) -> Result<u32, Error> {
        let dummy = LinkDummy::new(name).up().build();
        match self.add_link(dummy).await {
            // Small kernels lack the dummy driver; a bridge without ports is as quiet.
            Err(error) if errno(&error) == Some(nix::libc::EOPNOTSUPP) => {
                self.add_link(LinkBridge::new(name).arp(false).build()).await?;
            }
            other => other?,
        }
        self.link(name).await?.ok_or(Error::RequestFailed)
    }

    pub(crate) async fn add_link(&self, link: LinkMessage) -> Result<(), Error> {
        self.handle.link().add(link).execute().await
    }

    #[cfg(any(test, feature = "testkit"))]
    pub(crate) async fn set_up(&self, index: u32) -> Result<(), Error> {
        self.handle
            .link()
            .set(rtnetlink::LinkUnspec::new_with_index(index).up().build())
            .execute()
            .await
    }

    /// Removes a link; one that is not there is no error.
    pub(crate) async fn delete_link(&self, index: u32) -> Result<(), Error> {
        tolerate(self.handle.link().del(index).execute().await, is_absent)
    }

    /// The addresses of a link, but for those that IPv6 gives to each.
    pub(crate) async fn addresses(&self, index: u32) -> Result<HashSet<IpAddr>, Error> {
        let mut messages = self.handle.address().get().set_link_index_filter(index).execute();
        let mut found = HashSet::new();
        while let Some(message) = messages.try_next().await? {
            let addresses = message.attributes.iter().filter_map(|attribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            found.extend(addresses.filter(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())));
        }
        Ok(found)
    }

    /// Gives an address to a link; one that it has is no error.
    pub(crate) async fn add_address(&self, index: u32, ip: IpAddr, prefix: u8) -> Result<(), Error> {
        let mut request = self.handle.address().add(index, ip, prefix);
        if ip.is_ipv6() {
            // Without this the address can be used only after a while, in which others are asked whether they have it.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        let added = request.execute().await;
        tolerate(added, |error| errno(error) == Some(nix::libc::EEXIST))
    }

    /// Routes a range to a link; what was routed there before stays.
    pub(crate) async fn add_route(&self, index: u32, to: Cidr) -> Result<(), Error> {
        let message = match to.network() {
            IpAddr::V4(network) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(network, to.prefix())
                .output_interface(index)
                .scope(RouteScope::Link)
                .build(),
            IpAddr::V6(network) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(network, to.prefix())
                .output_interface(index)
                .build(),
        };
        let added = self.handle.route().add(message).execute().await;
        tolerate(added, |error| errno(error) == Some(nix::libc::EEXIST))
    }

    /// Takes an address from a link; one that it has not is no error.
    pub(crate) async fn delete_address(&self, index: u32, ip: IpAddr) -> Result<(), Error> {
        let mut messages = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .set_address_filter(ip)
            .execute();
        while let Some(message) = messages.try_next().await? {
            let deleted = self.handle.address().del(message).execute().await;
            tolerate(deleted, |error| errno(error) == Some(nix::libc::EADDRNOTAVAIL))?;
        }
        Ok(())
    }
}

fn tolerate(result: Result<(), Error>, fine: impl Fn(&Error) -> bool) -> Result<(), Error> {
    match result {
        Err(error) if !fine(&error) => Err(error),
        _ => Ok(()),
    }
}

fn is_absent(error: &Error) -> bool {
    errno(error) == Some(nix::libc::ENODEV)
}

/// The kernel's answer as a positive `errno`.
pub(crate) fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::NetlinkError(message) => message.code.map(|code| code.get().abs()),
        _ => None,
    }
}
