//! Which resources the API server has, for controllers that concern all of them.

use futures::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use kube::Client;
use kube::discovery::ApiResource;

/// A resource that can be listed and deleted.
#[derive(Clone, Debug)]
pub(crate) struct Discovered {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    verbs: Vec<String>,
}

impl Discovered {
    /// Whether the resource knows a verb.
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// All resources, each in its group's preferred version, without subresources.
pub(crate) async fn resources(client: &Client) -> kube::Result<Vec<Discovered>> {
    let core = client.list_core_api_resources("v1").await?;
    let groups = client.list_api_groups().await?.groups;
    let versions: Vec<String> = groups
        .iter()
        .filter_map(|group| {
            group
                .preferred_version
                .as_ref()
                .or_else(|| group.versions.first())
        })
        .map(|version| version.group_version.clone())
        .collect();
    let lists = try_join_all(
        versions
            .iter()
            .map(|version| client.list_api_group_resources(version)),
    )
    .await?;
    Ok(std::iter::once(core).chain(lists).flat_map(of_list).collect())
}

fn of_list(list: APIResourceList) -> impl Iterator<Item = Discovered> {
    let (group, version) = match list.group_version.split_once('/') {
        Some((group, version)) => (group.to_owned(), version.to_owned()),
        None => (String::new(), list.group_version.clone()),
    };
    let whole = list
        .resources
        .into_iter()
        .filter(|resource| !resource.name.contains('/'));
    whole.map(move |found: APIResource| Discovered {
        resource: ApiResource {
            group: group.clone(),
            version: version.clone(),
            api_version: list.group_version.clone(),
            kind: found.kind,
            plural: found.name,
        },
        namespaced: found.namespaced,
        verbs: found.verbs,
    })
}
