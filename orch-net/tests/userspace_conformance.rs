//! The userspace backend against real packets. Needs root, for the namespaces.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use orch_net::ProxyBackend;
use orch_net::testkit::{Expectations, POD_CIDRS, conformance};
use orch_net::userspace::{UserspaceBackend, UserspaceConfig};

fn backend() -> Box<dyn ProxyBackend> {
    Box::new(UserspaceBackend::new(UserspaceConfig {
        pod_cidrs: POD_CIDRS.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        ..UserspaceConfig::default()
    }))
}

fn delete_link() -> std::io::Result<()> {
    let status = std::process::Command::new("ip")
        .args(["link", "del", "orch-proxy"])
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(std::io::Error::other("ip link del failed"))
    }
}

#[test]
fn the_kit_passes() {
    let expectations = Expectations {
        damage: Some(Arc::new(delete_link)),
        ..Expectations::default()
    };
    conformance(expectations, backend).unwrap();
}
