//! The demo: rolls out `examples/manifests/web.yaml` and shows who answers behind its ClusterIP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::net::TcpStream;

use crate::assemble::View;

const MANIFEST: &str = include_str!("../manifests/web.yaml");
const REQUESTS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs all steps; the first that does not work is the error.
pub(crate) async fn run(cluster: &View) -> anyhow::Result<()> {
    if let Some(missing) = cluster.missing_for_demo() {
        bail!("{missing}");
    }
    let client = cluster.client();
    println!("\napply examples/manifests/web.yaml");
    apply(&client).await?;
    let took = roll_out(&client).await?;
    println!("3 replicas ready after {:.1} s", took.as_secs_f64());
    let address = cluster_ip(&client).await?;
    ask(address).await
}

/// Server-side apply of every document of the manifest.
async fn apply(client: &Client) -> anyhow::Result<()> {
    let objects: Vec<DynamicObject> =
        serde_saphyr::from_multiple(MANIFEST).context("examples/manifests/web.yaml")?;
    for object in objects {
        let types = object
            .types
            .clone()
            .context("an object without apiVersion and kind")?;
        let kind = types.kind.clone();
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
        let name = object.metadata.name.clone().context("an object without a name")?;
        api.patch(
            &name,
            &PatchParams::apply("orch-demo").force(),
            &Patch::Apply(&object),
        )
        .await
        .with_context(|| format!("{kind} {name}"))?;
        println!("  {} {name} applied", kind.to_lowercase());
    }
    Ok(())
}

/// Follows the Deployment until all its replicas are ready.
async fn roll_out(client: &Client) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("  {bar:30} {pos}/{len} ready {msg}")?.progress_chars("=> "),
    );
    let only_web = watcher::Config::default().fields("metadata.name=web");
    let mut changes = watcher(deployments, only_web).applied_objects().boxed();
    let finished = async {
        while let Some(deployment) = changes.try_next().await? {
            let wanted = deployment.spec.replicas.unwrap_or(1);
            let status = deployment.status.unwrap_or_default();
            let (ready, updated) = (
                status.ready_replicas.unwrap_or(0),
                status.updated_replicas.unwrap_or(0),
            );
            bar.set_length(u64::try_from(wanted)?);
            bar.set_position(u64::try_from(ready)?);
            bar.set_message(format!("({updated} of the new template)"));
            let seen = status.observed_generation >= deployment.metadata.generation;
            if seen && ready == wanted && updated == wanted && status.replicas == Some(wanted) {
                return anyhow::Ok(());
            }
        }
        bail!("the watch ended")
    };
    let finished = tokio::time::timeout(PATIENCE, finished).await;
    bar.finish_and_clear();
    finished.with_context(|| {
        format!("Deployment web is not ready after {PATIENCE:?}: see `kubectl describe pods -l app=web`")
    })??;
    Ok(began.elapsed())
}

async fn cluster_ip(client: &Client) -> anyhow::Result<IpAddr> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let spec = services.get("web").await?.spec.unwrap_or_default();
    spec.cluster_ip
        .context("Service web has no ClusterIP")?
        .parse()
        .context("Service web's ClusterIP")
}

/// Sends requests, each on a connection of its own, and prints who answered.
async fn ask(address: IpAddr) -> anyhow::Result<()> {
    println!("\n{REQUESTS} requests to the ClusterIP, http://{address}/");
    let mut answered = BTreeMap::<String, usize>::new();
    for number in 1..=REQUESTS {
        let pod = tokio::time::timeout(PATIENCE, patient_get(address))
            .await
            .context("no answer")??;
        println!("  {number:>2}  {pod}");
        *answered.entry(pod).or_default() += 1;
    }
    let shares: Vec<_> = answered
        .iter()
        .map(|(pod, count)| format!("{pod} {count}"))
        .collect();
    println!("answered: {}", shares.join(", "));
    Ok(())
}

/// A GET that is tried again while nothing listens: the proxy may learn of the pods a moment after the rollout's end.
async fn patient_get(address: IpAddr) -> anyhow::Result<String> {
    loop {
        match get(address).await {
            Err(error) if error.downcast_ref::<std::io::Error>().is_some() => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return other,
        }
    }
}

async fn get(address: IpAddr) -> anyhow::Result<String> {
    let stream = TcpStream::connect((address, 80)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::get("/")
        .header("host", "web")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        anyhow::ensure!(response.status().is_success(), "answered {}", response.status());
        let body = response.into_body().collect().await?.to_bytes();
        drop(sender);
        Ok(String::from_utf8_lossy(&body).trim().to_owned())
    };
    let (body, connection) = tokio::join!(exchange, connection);
    connection?;
    body
}
