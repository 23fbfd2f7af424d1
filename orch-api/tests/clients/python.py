"""The Python client against a server of ours: typed, dynamic, watching. Run by tests/python.rs; ends with an assertion if anything
is not as with Kubernetes."""

import sys
import threading

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException

config.load_kube_config(sys.argv[1])
core, apps = client.CoreV1Api(), client.AppsV1Api()


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"app": "try"}), data=data)


def typed():
    created = core.create_namespaced_config_map("default", config_map("typed", a="1"))
    assert created.metadata.uid and created.metadata.resource_version
    try:
        core.create_namespaced_config_map("default", config_map("typed"))
        raise AssertionError("created twice")
    except ApiException as error:
        assert error.status == 409 and '"AlreadyExists"' in error.body, error
    patched = core.patch_namespaced_config_map("typed", "default", {"data": {"b": "2"}})
    assert patched.data == {"a": "1", "b": "2"}
    stale = created
    stale.data = {"c": "3"}
    try:
        core.replace_namespaced_config_map("typed", "default", stale)
        raise AssertionError("replaced with a stale version")
    except ApiException as error:
        assert error.status == 409 and "the object has been modified" in error.body, error
    found = core.list_namespaced_config_map("default", label_selector="app=try", limit=1)
    assert [item.metadata.name for item in found.items] == ["typed"]
    core.delete_namespaced_config_map("typed", "default")
    try:
        core.read_namespaced_config_map("typed", "default")
        raise AssertionError("read after it was deleted")
    except ApiException as error:
        assert error.status == 404 and 'configmaps \\"typed\\" not found' in error.body, error


def pages():
    for number in range(25):
        core.create_namespaced_config_map("default", config_map(f"page-{number:02}"))
    names, token = [], None
    while True:
        page = core.list_namespaced_config_map("default", label_selector="app=try", limit=10, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"page-{number:02}" for number in range(25)], names
    core.delete_collection_namespaced_config_map("default", label_selector="app=try")
    assert not core.list_namespaced_config_map("default", label_selector="app=try").items


def deployments():
    labels = {"app": "web"}
    container = client.V1Container(name="web", image="example/web:1", ports=[client.V1ContainerPort(container_port=80)])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(replicas=2, selector=client.V1LabelSelector(match_labels=labels), template=template)
    body = client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec)
    created = apps.create_namespaced_deployment("default", body)
    assert created.spec.strategy.rolling_update.max_surge == "25%", "defaults are filled in"
    scale = apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 5}})
    assert scale.spec.replicas == 5 and scale.status.selector == "app=web"
    merged = apps.patch_namespaced_deployment(
        "web", "default", {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "example/web:2"}]}}}}
    )
    found = merged.spec.template.spec.containers
    assert [(one.name, one.image, one.ports[0].container_port) for one in found] == [("web", "example/web:2", 80)]
    body.spec.selector = client.V1LabelSelector(match_labels={"app": "other"})
    try:
        apps.create_namespaced_deployment("default", body, dry_run="All")
        raise AssertionError("created with a selector that does not match")
    except ApiException as error:
        assert error.status == 422 and "spec.template.metadata.labels" in error.body, error
    apps.delete_namespaced_deployment("web", "default", propagation_policy="Foreground")


def watching():
    start = core.list_namespaced_config_map("default").metadata.resource_version

    def write():
        core.create_namespaced_config_map("default", config_map("seen", a="1"))
        core.patch_namespaced_config_map("seen", "default", {"data": {"a": "2"}})
        core.delete_namespaced_config_map("seen", "default")

    writer = threading.Thread(target=write)
    writer.start()
    seen, stream = [], watch.Watch()
    for event in stream.stream(
        core.list_namespaced_config_map, "default", resource_version=start, timeout_seconds=30
    ):
        seen.append((event["type"], event["object"].metadata.name, (event["object"].data or {}).get("a")))
        if event["type"] == "DELETED":
            stream.stop()
    writer.join()
    assert seen == [("ADDED", "seen", "1"), ("MODIFIED", "seen", "2"), ("DELETED", "seen", "2")], seen


def dynamically():
    every = dynamic.DynamicClient(client.ApiClient())
    maps = every.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dynamic"}, "data": {"a": "1"}}
    applied = maps.server_side_apply(namespace="default", body=body, field_manager="one")
    assert applied.metadata.managedFields[0].manager == "one"
    body["data"]["a"] = "2"
    try:
        maps.server_side_apply(namespace="default", body=body, field_manager="other")
        raise AssertionError("applied over somebody else's field")
    except dynamic.exceptions.ConflictError as error:
        assert 'conflict with \\"one\\"' in error.body, error.body
    forced = maps.server_side_apply(namespace="default", body=body, field_manager="other", force_conflicts=True)
    assert forced.data.a == "2"
    leases = every.resources.get(api_version="coordination.k8s.io/v1", kind="Lease")
    leases.create(namespace="default", body={"metadata": {"name": "lock"}, "spec": {"holderIdentity": "me"}})
    assert leases.get(namespace="default", name="lock").spec.holderIdentity == "me"
    names = {resource.name for resource in every.resources.search()}
    assert {"pods", "deployments", "events", "leases"} <= names, names


for check in (typed, pages, deployments, watching, dynamically):
    check()
    print(f"{check.__name__}: as with Kubernetes")
