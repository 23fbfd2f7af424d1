//! One update of a 2 KiB object, told to 1, 100 and 1000 watchers: from the write to the last watcher's line.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use orch_api::testkit::TestServer;
use orch_api::{Body, UserInfo};
use tower::ServiceExt;

const PATH: &str = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=";

fn object(round: u64) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some("watched".into()),
            ..ObjectMeta::default()
        },
        data: Some(
            [
                ("data".into(), "x".repeat(2048)),
                ("round".into(), round.to_string()),
            ]
            .into(),
        ),
        ..ConfigMap::default()
    }
}

async fn watch(server: &TestServer, from: &str) -> Body {
    let request = http::Request::get(format!("{PATH}{from}"))
        .extension(UserInfo::admin())
        .body(String::new())
        .unwrap();
    server
        .server()
        .clone()
        .oneshot(request)
        .await
        .unwrap()
        .into_body()
}

async fn rounds(watchers: usize, rounds: u64) -> Duration {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let first = maps.create(&PostParams::default(), &object(0)).await.unwrap();
    let from = first.metadata.resource_version.unwrap();
    let mut bodies = Vec::new();
    for _ in 0..watchers {
        bodies.push(watch(&server, &from).await);
    }
    let start = Instant::now();
    for round in 1..=rounds {
        maps.replace("watched", &PostParams::default(), &object(round))
            .await
            .unwrap();
        let mut told: FuturesUnordered<_> = bodies.iter_mut().map(|body| body.frame()).collect();
        while let Some(frame) = told.next().await {
            assert!(frame.unwrap().unwrap().into_data().unwrap().len() > 2048);
        }
    }
    start.elapsed()
}

fn watch_fanout(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut group = criterion.benchmark_group("watch_fanout");
    for watchers in [1_usize, 100, 1000] {
        group.throughput(Throughput::Elements(watchers as u64));
        group.bench_with_input(
            BenchmarkId::from_parameter(watchers),
            &watchers,
            |bencher, watchers| {
                bencher
                    .to_async(&runtime)
                    .iter_custom(|count| rounds(*watchers, count));
            },
        );
    }
    group.finish();
}

criterion_group!(benches, watch_fanout);
criterion_main!(benches);
