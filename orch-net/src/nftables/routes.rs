//! Routes by which the node's own connections to cluster IPs get as far as the rules.
//!
//! A connection is routed before it is translated, so without a route to a cluster IP it would fail at once.

use orch_core::ipam::Cidr;

use crate::backend::BackendError;
use crate::netlink::Netlink;

/// Routes the ranges to the link, which is made if need be. Without ranges there is no link.
pub(super) async fn ensure(link: &str, ranges: &[Cidr]) -> Result<(), BackendError> {
    if ranges.is_empty() {
        return Ok(());
    }
    let netlink = open()?;
    let failed = |error| BackendError::netlink(format!("make link {link}"), error);
    let index = match netlink.link(link).await.map_err(failed)? {
        Some(index) => index,
        None => netlink.add_holder(link).await.map_err(failed)?,
    };
    for range in ranges {
        let added = netlink.add_route(index, *range).await;
        added.map_err(|error| BackendError::netlink(format!("route {range} to {link}"), error))?;
    }
    Ok(())
}

/// Removes the link, and with it the routes.
pub(super) async fn remove(link: &str) -> Result<(), BackendError> {
    let netlink = open()?;
    let failed = |error| BackendError::netlink(format!("remove link {link}"), error);
    match netlink.link(link).await.map_err(failed)? {
        Some(index) => netlink.delete_link(index).await.map_err(failed),
        None => Ok(()),
    }
}

fn open() -> Result<Netlink, BackendError> {
    Netlink::open().map_err(|error| BackendError::io("open rtnetlink", error))
}
