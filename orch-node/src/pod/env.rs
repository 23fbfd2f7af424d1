//! A container's environment: values, fields of the pod, config maps, secrets, services.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, EnvVarSource, Pod, ResourceFieldSelector, Secret, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use orch_core::quantity::Quantity;

use super::view::{find_container, spec};

/// Why a container's configuration cannot be made (`CreateContainerConfigError`).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

impl From<String> for ConfigError {
    fn from(message: String) -> Self {
        Self(message)
    }
}

/// The objects that a pod's environment and volumes refer to. A name with `None` was looked for and is absent.
#[derive(Debug, Default)]
pub(crate) struct Referenced {
    pub(crate) config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub(crate) secrets: BTreeMap<String, Option<Secret>>,
    pub(crate) services: Vec<Service>,
}

/// Names of objects that are needed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
}

/// What the environment needs to know of the node.
#[derive(Debug, Clone, Default)]
pub(crate) struct EnvFacts {
    pub(crate) pod_ips: Vec<String>,
    pub(crate) host_ips: Vec<String>,
    pub(crate) allocatable: BTreeMap<String, ApiQuantity>,
}

/// The objects that a container's environment refers to.
pub(crate) fn references(container: &Container) -> References {
    let mut all = References::default();
    for from in container.env_from.iter().flatten() {
        all.config_maps
            .extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        all.secrets
            .extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|var| var.value_from.as_ref())
    {
        all.config_maps
            .extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        all.secrets
            .extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    all
}

/// A container's variables, in upstream's order: services, `envFrom`, `env`; what comes later replaces.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    referenced: &Referenced,
    facts: &EnvFacts,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut vars: Vec<(String, String)> = Vec::new();
    let mut set = |key: String, value: String| match vars.iter_mut().find(|(known, _)| *known == key) {
        Some(entry) => entry.1 = value,
        None => vars.push((key, value)),
    };
    for (key, value) in service_variables(&referenced.services) {
        set(key, value);
    }
    for (key, value) in env_from(container, referenced)? {
        set(key, value);
    }
    for var in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, var, &vars, referenced, facts)? {
            match vars.iter_mut().find(|(known, _)| *known == var.name) {
                Some(entry) => entry.1 = value,
                None => vars.push((var.name.clone(), value)),
            }
        }
    }
    Ok(vars)
}

fn env_from(container: &Container, referenced: &Referenced) -> Result<Vec<(String, String)>, ConfigError> {
    let mut vars = Vec::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut add = |key: &str, value: String| vars.push((format!("{prefix}{key}"), value));
        if let Some(source) = &from.config_map_ref {
            let found = config_map(referenced, &source.name, source.optional)?;
            for (key, value) in found.and_then(|map| map.data.as_ref()).into_iter().flatten() {
                add(key, value.clone());
            }
        }
        if let Some(source) = &from.secret_ref {
            let found = secret(referenced, &source.name, source.optional)?;
            for (key, value) in found
                .and_then(|secret| secret.data.as_ref())
                .into_iter()
                .flatten()
            {
                add(key, String::from_utf8_lossy(&value.0).into_owned());
            }
        }
    }
    Ok(vars)
}

/// A config map by name: an error when it is absent and not optional.
pub(crate) fn config_map<'a>(
    referenced: &'a Referenced,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a ConfigMap>, ConfigError> {
    match referenced.config_maps.get(name).and_then(Option::as_ref) {
        None if optional != Some(true) => Err(ConfigError(format!("configmap {name:?} not found"))),
        found => Ok(found),
    }
}

/// A secret by name: an error when it is absent and not optional.
pub(crate) fn secret<'a>(
    referenced: &'a Referenced,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a Secret>, ConfigError> {
    match referenced.secrets.get(name).and_then(Option::as_ref) {
        None if optional != Some(true) => Err(ConfigError(format!("secret {name:?} not found"))),
        found => Ok(found),
    }
}

fn value_of(
    pod: &Pod,
    var: &EnvVar,
    vars: &[(String, String)],
    referenced: &Referenced,
    facts: &EnvFacts,
) -> Result<Option<String>, ConfigError> {
    match &var.value_from {
        None => Ok(Some(expand(var.value.as_deref().unwrap_or_default(), vars))),
        Some(source) => from_source(pod, source, referenced, facts),
    }
}

fn from_source(
    pod: &Pod,
    source: &EnvVarSource,
    referenced: &Referenced,
    facts: &EnvFacts,
) -> Result<Option<String>, ConfigError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        return field_value(pod, &field.field_path, facts).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(pod, resource, facts).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let map = config_map(referenced, &key.name, key.optional)?;
        let value = map.and_then(|map| map.data.as_ref()?.get(&key.key).cloned());
        let missing = || {
            ConfigError(format!(
                "couldn't find key {} in ConfigMap {namespace}/{}",
                key.key, key.name
            ))
        };
        return if value.is_none() && key.optional != Some(true) {
            Err(missing())
        } else {
            Ok(value)
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let secret = secret(referenced, &key.name, key.optional)?;
        let value = secret.and_then(|secret| secret.data.as_ref()?.get(&key.key));
        let value = value.map(|value| String::from_utf8_lossy(&value.0).into_owned());
        let missing = || {
            ConfigError(format!(
                "couldn't find key {} in Secret {namespace}/{}",
                key.key, key.name
            ))
        };
        return if value.is_none() && key.optional != Some(true) {
            Err(missing())
        } else {
            Ok(value)
        };
    }
    Err(ConfigError(
        "environment from a file is not built into this agent yet".into(),
    ))
}

/// The value of a field path of the downward API.
pub(crate) fn field_value(pod: &Pod, path: &str, facts: &EnvFacts) -> Result<String, ConfigError> {
    let meta = &pod.metadata;
    let map_text = |map: &Option<BTreeMap<String, String>>| {
        let lines = map
            .iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value:?}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    if let Some((field, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match field {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(ConfigError(format!("unsupported fieldPath: {path}"))),
        };
        return Ok(map
            .as_ref()
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default());
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => map_text(&meta.labels),
        "metadata.annotations" => map_text(&meta.annotations),
        "spec.nodeName" => text(&spec(pod).node_name),
        "spec.serviceAccountName" => text(&spec(pod).service_account_name),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(ConfigError(format!("unsupported fieldPath: {path}"))),
    })
}

/// The value of a container's request or limit in units of the divisor, rounded up.
pub(crate) fn resource_value(
    pod: &Pod,
    selector: &ResourceFieldSelector,
    facts: &EnvFacts,
) -> Result<String, ConfigError> {
    let name = selector.container_name.as_deref().unwrap_or_default();
    let only = || spec(pod).containers.first();
    let container = if name.is_empty() {
        only()
    } else {
        find_container(pod, name)
    };
    let container = container.ok_or_else(|| ConfigError(format!("container {name} not found")))?;
    let (kind, resource) = selector.resource.split_once('.').unwrap_or_default();
    let resources = container.resources.as_ref();
    let value = match kind {
        "requests" => resources.and_then(|r| r.requests.as_ref()?.get(resource)),
        // Without a limit the container can use what the node has.
        "limits" => resources
            .and_then(|r| r.limits.as_ref()?.get(resource))
            .or_else(|| facts.allocatable.get(resource)),
        _ => {
            return Err(ConfigError(format!(
                "unsupported container resource : {}",
                selector.resource
            )));
        }
    };
    let milli = value.map_or(Ok(0), |value| milli(&value.0))?;
    let divisor = selector.divisor.as_ref().map_or(Ok(0), milli_of)?;
    let divisor = if divisor == 0 { 1000 } else { divisor };
    Ok(((milli + divisor - 1) / divisor).to_string())
}

fn milli_of(quantity: &ApiQuantity) -> Result<i128, ConfigError> {
    milli(&quantity.0)
}

fn milli(text: &str) -> Result<i128, ConfigError> {
    let quantity: Quantity = text
        .parse()
        .map_err(|error| ConfigError(format!("quantity {text:?}: {error}")))?;
    Ok(i128::from(quantity.value())
        .checked_mul(1000)
        .filter(|_| quantity.value() > 1_000_000_000)
        .unwrap_or_else(|| i128::from(quantity.milli_value())))
}

/// Replaces `$(NAME)` by the variable's value; an unknown one stays as it is, and `$$` is a dollar sign.
pub(crate) fn expand(text: &str, vars: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        match after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            Some((name, tail)) => {
                match vars.iter().find(|(key, _)| key == name) {
                    Some((_, value)) => out.push_str(value),
                    None => out.push_str(&rest[at..at + name.len() + 3]),
                }
                rest = tail;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The variables by which pods find services, in docker's old style too.
fn service_variables(services: &[Service]) -> Vec<(String, String)> {
    let mut vars = Vec::new();
    for service in services {
        let spec = service.spec.clone().unwrap_or_default();
        let ip = spec.cluster_ip.unwrap_or_default();
        let ports = spec.ports.unwrap_or_default();
        let Some(first) = ports.first().filter(|_| !ip.is_empty() && ip != "None") else {
            continue;
        };
        let prefix = variable_name(service.metadata.name.as_deref().unwrap_or_default());
        vars.push((format!("{prefix}_SERVICE_HOST"), ip.clone()));
        vars.push((format!("{prefix}_SERVICE_PORT"), first.port.to_string()));
        for port in ports
            .iter()
            .filter(|port| port.name.as_ref().is_some_and(|name| !name.is_empty()))
        {
            let name = variable_name(port.name.as_deref().unwrap_or_default());
            vars.push((format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string()));
        }
        let host = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.clone()
        };
        for (index, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                vars.push((format!("{prefix}_PORT"), url.clone()));
            }
            let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            vars.push((port_prefix.clone(), url));
            vars.push((format!("{port_prefix}_PROTO"), protocol.to_lowercase()));
            vars.push((format!("{port_prefix}_PORT"), port.port.to_string()));
            vars.push((format!("{port_prefix}_ADDR"), ip.clone()));
        }
    }
    vars
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "JSON literals read better by value")]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(container: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [container]},
        }))
        .unwrap()
    }

    fn resolve(
        container: serde_json::Value,
        referenced: &Referenced,
    ) -> Result<Vec<(String, String)>, ConfigError> {
        let pod = pod(container);
        let facts = EnvFacts {
            pod_ips: vec!["10.0.0.9".into()],
            host_ips: vec!["192.0.2.1".into()],
            ..EnvFacts::default()
        };
        environment(&pod, &spec(&pod).containers[0], referenced, &facts)
    }

    #[test]
    fn variables_are_expanded_from_those_before_them() {
        let vars = [("A".to_owned(), "1".to_owned())];
        for (text, expected) in [
            ("$(A)-$(B)-$$(A)-$A-$", "1-$(B)-$(A)-$A-$"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("$$$(A)", "$1"),
            ("é$(A)é", "é1é"),
        ] {
            assert_eq!(expand(text, &vars), expected, "{text}");
        }
        let env = json!({"name": "c", "env": [{"name": "A", "value": "x"}, {"name": "B", "value": "$(A)$(C)"}, {"name": "C", "value": "z"}]});
        let vars = resolve(env, &Referenced::default()).unwrap();
        assert_eq!(vars[1], ("B".into(), "x$(C)".into()));
    }

    #[test]
    fn fields_and_resources_of_the_pod_are_shown() {
        let field =
            |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let container = json!({"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}, "env": [
            field("NAME", "metadata.name"), field("APP", "metadata.labels['app']"), field("IP", "status.podIP"), field("NODE", "spec.nodeName"),
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        ]});
        let vars = resolve(container, &Referenced::default()).unwrap();
        let values: Vec<&str> = vars.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["web", "web", "10.0.0.9", "n1", "2", "64"]);
    }

    #[test]
    fn missing_objects_and_keys_are_errors_unless_optional() {
        let with =
            |source: serde_json::Value| json!({"name": "c", "env": [{"name": "A", "valueFrom": source}]});
        let mut referenced = Referenced::default();
        referenced
            .config_maps
            .insert("empty".into(), Some(ConfigMap::default()));
        referenced.secrets.insert("gone".into(), None);
        let message = |source| resolve(with(source), &referenced).unwrap_err().to_string();
        assert_eq!(
            message(json!({"secretKeyRef": {"name": "gone", "key": "k"}})),
            "secret \"gone\" not found"
        );
        assert_eq!(
            message(json!({"configMapKeyRef": {"name": "empty", "key": "k"}})),
            "couldn't find key k in ConfigMap shop/empty"
        );
        let optional = with(json!({"configMapKeyRef": {"name": "empty", "key": "k", "optional": true}}));
        assert_eq!(resolve(optional, &referenced), Ok(Vec::new()));
        let all = json!({"name": "c", "envFrom": [{"configMapRef": {"name": "absent"}}]});
        assert_eq!(
            resolve(all, &referenced).unwrap_err().to_string(),
            "configmap \"absent\" not found"
        );
    }

    #[test]
    fn services_are_shown_as_variables() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "my-db"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]},
        }))
        .unwrap();
        let vars: BTreeMap<String, String> = service_variables(&[service]).into_iter().collect();
        assert_eq!(vars["MY_DB_SERVICE_HOST"], "10.96.0.7");
        assert_eq!(vars["MY_DB_SERVICE_PORT_SQL"], "5432");
        assert_eq!(vars["MY_DB_PORT"], "tcp://10.96.0.7:5432");
        assert_eq!(vars["MY_DB_PORT_5432_TCP_ADDR"], "10.96.0.7");
    }
}
