//! Owning the addresses of Services, so that packets to them end at this host.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

use crate::backend::BackendError;
use crate::netlink::{Netlink, errno};

/// Why an address is not this host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoAddress {
    /// The process may not add addresses.
    NotPermitted,
    /// The kernel refused this one.
    Refused(String),
}

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted => f.write_str(
                "without root only addresses in 127.0.0.0/8 and node ports are served; run as root to own this address",
            ),
            Self::Refused(reason) => write!(f, "the kernel refused the address: {reason}"),
        }
    }
}

/// The link that holds them, if there may be one.
#[derive(Debug)]
pub(super) struct Addresses {
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    netlink: Netlink,
    index: u32,
    held: HashSet<IpAddr>,
}

#[derive(Debug, Default)]
pub(super) struct Reconciled {
    pub(super) refused: HashMap<IpAddr, NoAddress>,
    pub(super) writes: usize,
}

impl Addresses {
    /// Finds or makes the link, and finds what it holds.
    pub(super) async fn open(name: &str) -> Result<Self, BackendError> {
        let netlink = open_netlink()?;
        let failed = |error| BackendError::netlink(format!("make link {name}"), error);
        let index = match netlink.link(name).await.map_err(failed)? {
            Some(index) => index,
            None => match netlink.add_holder(name).await {
                Ok(index) => index,
                Err(error) if is_denied(&error) => return Ok(Self { link: None }),
                Err(error) => return Err(failed(error)),
            },
        };
        let mut link = Link {
            netlink,
            index,
            held: HashSet::new(),
        };
        link.held = link.found().await?;
        Ok(Self { link: Some(link) })
    }

    /// What the link holds.
    pub(super) fn held(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.link.iter().flat_map(|link| &link.held).copied()
    }

    /// Of the addresses in `touched`, adds those that are wanted and missing, and removes those that are not wanted.
    pub(super) async fn reconcile(
        &mut self,
        touched: &HashSet<IpAddr>,
        is_wanted: impl Fn(&IpAddr) -> bool,
    ) -> Result<Reconciled, BackendError> {
        let mut outcome = Reconciled::default();
        let (wanted, unwanted): (Vec<IpAddr>, Vec<IpAddr>) = touched.iter().partition(|ip| is_wanted(ip));
        let needed = wanted.into_iter().filter(|ip| !ip.is_loopback());
        let Some(link) = &mut self.link else {
            outcome.refused = needed.map(|ip| (ip, NoAddress::NotPermitted)).collect();
            return Ok(outcome);
        };
        for ip in unwanted
            .into_iter()
            .filter(|ip| link.held.contains(ip))
            .collect::<Vec<_>>()
        {
            let deleted = link.netlink.delete_address(link.index, ip).await;
            deleted.map_err(|error| BackendError::netlink(format!("remove address {ip}"), error))?;
            link.held.remove(&ip);
            outcome.writes += 1;
        }
        for ip in needed {
            match link.add(ip).await {
                Ok(writes) => outcome.writes += writes,
                Err(reason) => drop(outcome.refused.insert(ip, reason)),
            }
        }
        Ok(outcome)
    }

    /// Whether the link still holds what it should.
    pub(super) async fn intact(&self) -> Result<bool, BackendError> {
        let Some(link) = &self.link else { return Ok(true) };
        Ok(link.held.is_subset(&link.found().await?))
    }

    /// Removes the link of that name, whoever made it.
    pub(super) async fn remove(name: &str) -> Result<(), BackendError> {
        let netlink = open_netlink()?;
        let failed = |error| BackendError::netlink(format!("remove link {name}"), error);
        match netlink.link(name).await.map_err(failed)? {
            Some(index) => netlink.delete_link(index).await.map_err(failed),
            None => Ok(()),
        }
    }
}

impl Link {
    /// Gives the link an address, unless it has it.
    async fn add(&mut self, ip: IpAddr) -> Result<usize, NoAddress> {
        if self.held.contains(&ip) {
            return Ok(0);
        }
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        let added = self.netlink.add_address(self.index, ip, prefix).await;
        added.map_err(|error| match error {
            error if is_denied(&error) => NoAddress::NotPermitted,
            error => NoAddress::Refused(error.to_string()),
        })?;
        self.held.insert(ip);
        Ok(1)
    }

    async fn found(&self) -> Result<HashSet<IpAddr>, BackendError> {
        let found = self.netlink.addresses(self.index).await;
        found.map_err(|error| BackendError::netlink("list addresses", error))
    }
}

fn open_netlink() -> Result<Netlink, BackendError> {
    Netlink::open().map_err(|error| BackendError::io("open rtnetlink", error))
}

fn is_denied(error: &rtnetlink::Error) -> bool {
    errno(error) == Some(nix::libc::EPERM)
}
