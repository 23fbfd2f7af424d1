//! The nftables backend against real packets. Needs root and nft (`apt-get install nftables`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::process::Command;
use std::sync::Arc;

use orch_net::ProxyBackend;
use orch_net::nftables::{NftablesBackend, NftablesConfig};
use orch_net::testkit::{BRIDGE_CIDRS, Expectations, POD_CIDRS, conformance};

fn backend() -> Box<dyn ProxyBackend> {
    Box::new(NftablesBackend::new(NftablesConfig {
        pod_cidrs: POD_CIDRS.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        bridge_cidrs: BRIDGE_CIDRS.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        ..NftablesConfig::default()
    }))
}

fn nft(args: &[&str]) -> io::Result<String> {
    let output = Command::new("nft").args(args).output()?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }
}

fn expectations(bridge_netfilter: bool) -> Expectations {
    Expectations {
        keeps_client_address: true,
        outlives_process: true,
        damage: Some(Arc::new(|| nft(&["flush", "ruleset"]).map(drop))),
        bridge_netfilter,
        ipv4_only: false,
    }
}

#[test]
fn the_kit_passes_where_bridges_are_not_filtered() {
    conformance(expectations(false), backend).unwrap();
}

#[test]
fn the_kit_passes_where_bridges_are_filtered() {
    conformance(expectations(true), backend).unwrap();
}
