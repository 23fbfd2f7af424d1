//! A proxy backend from outside: it serves nothing and prints what a backend would have to do.
//!
//! Run it against any cluster of your kubeconfig, then scale a Deployment that has a Service:
//! `cargo run -p orch-net --example print_changes`

#![allow(clippy::print_stdout, reason = "printing is what it does")]

use std::error::Error;

use async_trait::async_trait;
use kube::Client;
use orch_net::model::{Change, Route, ServicePort};
use orch_net::{BackendError, Changes, DesiredState, ProxyBackend, ServiceProxy, SyncReport};
use tokio_util::sync::CancellationToken;

struct Printer;

#[async_trait]
impl ProxyBackend for Printer {
    fn name(&self) -> &'static str {
        "printer"
    }

    async fn probe(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    async fn sync(&mut self, desired: &DesiredState, changes: &Changes) -> Result<SyncReport, BackendError> {
        match changes {
            Changes::All => {
                println!("serve {} service ports:", desired.len());
                desired.iter().for_each(|port| print_port("=", port));
            }
            Changes::Only(changes) => {
                println!("{} service ports differ:", changes.len());
                changes.iter().for_each(print_change);
            }
        }
        Ok(SyncReport::default())
    }

    async fn cleanup(&mut self) -> Result<(), BackendError> {
        println!("remove everything");
        Ok(())
    }
}

fn print_change(change: &Change) {
    if let Some(before) = &change.before {
        print_port("-", before);
    }
    if let Some(after) = &change.after {
        print_port("+", after);
    }
}

fn print_port(sign: &str, port: &ServicePort) {
    for frontend in &port.frontends {
        let at = frontend
            .address
            .ip()
            .map_or_else(|| "node port".to_owned(), |ip| ip.to_string());
        let to = match port.route(frontend) {
            Route::Endpoints(endpoints) => endpoints
                .iter()
                .map(|endpoint| endpoint.address.to_string())
                .collect::<Vec<_>>()
                .join(", "),
            Route::Reject => "nobody: reject".to_owned(),
            Route::Drop => "nobody here: drop".to_owned(),
        };
        println!(
            "  {sign} {} {at} {}/{} -> {to}",
            port.key, frontend.port, port.key.protocol
        );
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::try_default().await?;
    let proxy = ServiceProxy::builder(client)
        .backend(Printer)
        .cleanup_on_stop(true)
        .build()
        .await?;
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(proxy.run(shutdown.clone()));
    tokio::signal::ctrl_c().await?;
    shutdown.cancel();
    Ok(run.await?)
}
