//! The service proxy's work without the kernel's: from the desired state to the whole script, and from one changed
//! EndpointSlice to the script of the difference.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use orch_net::nftables::{Nft, NftError, NftablesBackend, NftablesConfig};
use orch_net::objects::EndpointSlice;
use orch_net::{Changes, ProxyBackend, Tracker};
use serde_json::{Value, json};

const ENDPOINTS: usize = 10;

/// Takes every script.
struct NoNft;

#[async_trait::async_trait]
impl Nft for NoNft {
    async fn apply(&self, script: &str) -> Result<(), NftError> {
        black_box(script);
        Ok(())
    }

    async fn check(&self, _: &str) -> Result<(), NftError> {
        Ok(())
    }

    async fn list_chain(&self, _: &str, _: &str, _: &str) -> Result<String, NftError> {
        Ok(String::new())
    }
}

fn service(index: usize) -> Value {
    let cluster_ip = format!("10.96.{}.{}", index / 250, index % 250 + 1);
    json!({
        "metadata": {"namespace": "bench", "name": format!("svc-{index}")},
        "spec": {"clusterIP": cluster_ip, "ports": [{"name": "http", "port": 80}]},
    })
}

/// The slice of a service; `first` is the last octet of its first endpoint.
fn slice(index: usize, first: usize) -> EndpointSlice {
    let ip = |n: usize| format!("10.{}.{}.{}", 128 + index / 250, index % 250, n);
    let endpoints: Vec<Value> = (first..first + ENDPOINTS)
        .map(|n| json!({"addresses": [ip(n)]}))
        .collect();
    let name = format!("svc-{index}");
    let slice = json!({
        "metadata": {"namespace": "bench", "name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
    });
    serde_json::from_value(slice).expect("a valid slice")
}

fn cluster(services: usize) -> Tracker {
    let mut tracker = Tracker::new("node");
    for index in 0..services {
        tracker.apply_service(&serde_json::from_value(service(index)).expect("a valid service"));
        tracker.apply_slice(&slice(index, 1));
    }
    tracker.take_changes();
    tracker
}

fn rules(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let config = NftablesConfig::default();
    let mut group = c.benchmark_group("proxy_rules");
    group.sample_size(10);
    for services in [1_000, 10_000] {
        let mut tracker = cluster(services);
        group.bench_function(BenchmarkId::new("full_generation", services), |b| {
            b.iter(|| NftablesBackend::full_script(&config, tracker.state()).len());
        });
        let mut backend = NftablesBackend::with_nft(config.clone(), Arc::new(NoNft));
        runtime
            .block_on(backend.sync(tracker.state(), &Changes::All))
            .expect("a full sync");
        let slices = [slice(services / 2, 2), slice(services / 2, 1)];
        let mut turn = 0;
        group.bench_function(BenchmarkId::new("one_endpoint_changed", services), |b| {
            b.iter(|| {
                tracker.apply_slice(&slices[turn % 2]);
                turn += 1;
                let (desired, changes) = tracker.sync_input();
                let report = runtime.block_on(backend.sync(desired, &changes));
                report.expect("a sync").writes
            });
        });
    }
    group.finish();
}

criterion_group!(benches, rules);
criterion_main!(benches);
