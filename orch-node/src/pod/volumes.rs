//! A pod's volumes on the node's disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, Pod,
    ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use orch_core::quantity::Quantity;

use super::env::{
    ConfigError, EnvFacts, Referenced, References, config_map, field_value, resource_value, secret,
};
use super::view::spec;
use crate::runtime::Mount;

/// Why a volume could not be made (`FailedMount`).
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{step}: {source}")]
    Io { step: String, source: io::Error },
    #[error("volume type {0} is not built into this agent yet")]
    NotBuilt(&'static str),
}

fn at(step: impl Into<String>) -> impl FnOnce(io::Error) -> VolumeError {
    let step = step.into();
    move |source| VolumeError::Io { step, source }
}

/// Files by path in the volume, with mode.
type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// Service account tokens that were requested for a pod: by volume name and path.
pub(crate) type Tokens = BTreeMap<(String, String), String>;

/// The objects that a pod's volumes refer to.
pub(crate) fn references(pod: &Pod) -> References {
    let mut all = References::default();
    for volume in spec(pod).volumes.iter().flatten() {
        all.config_maps
            .extend(volume.config_map.as_ref().map(|source| source.name.clone()));
        all.secrets.extend(
            volume
                .secret
                .as_ref()
                .and_then(|source| source.secret_name.clone()),
        );
        for source in volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten())
        {
            all.config_maps
                .extend(source.config_map.as_ref().map(|source| source.name.clone()));
            all.secrets
                .extend(source.secret.as_ref().map(|source| source.name.clone()));
        }
    }
    all
}

/// The tokens that a pod's projected volumes ask for.
pub(crate) fn token_requests(pod: &Pod) -> Vec<(String, &ServiceAccountTokenProjection)> {
    let volumes = spec(pod).volumes.iter().flatten();
    let sources = volumes.flat_map(|volume| {
        let sources = volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten());
        sources.map(move |source| (volume.name.clone(), source))
    });
    sources
        .filter_map(|(name, source)| source.service_account_token.as_ref().map(|token| (name, token)))
        .collect()
}

/// Where a volume is, given the pod's directory.
fn path_of(dir: &Path, volume: &Volume) -> PathBuf {
    if let Some(host) = &volume.host_path {
        return PathBuf::from(&host.path);
    }
    let kind = if volume.empty_dir.is_some() {
        "empty-dir"
    } else if volume.config_map.is_some() {
        "configmap"
    } else if volume.secret.is_some() {
        "secret"
    } else if volume.downward_api.is_some() {
        "downward-api"
    } else {
        "projected"
    };
    dir.join("volumes")
        .join(format!("kubernetes.io~{kind}"))
        .join(&volume.name)
}

/// Makes all volumes of a pod, or brings those up to date that show objects.
pub(crate) fn prepare(
    pod: &Pod,
    dir: &Path,
    data: &Referenced,
    facts: &EnvFacts,
    tokens: &Tokens,
) -> Result<(), VolumeError> {
    for volume in spec(pod).volumes.iter().flatten() {
        let path = path_of(dir, volume);
        if let Some(source) = &volume.empty_dir {
            empty_dir(&path, source)?;
        } else if let Some(source) = &volume.host_path {
            host_path(source)?;
        } else {
            let files = files_of(pod, volume, data, facts, tokens)?;
            write_atomically(&path, &files).map_err(at(format!("write volume {}", volume.name)))?;
        }
        if volume.host_path.is_none() {
            give_to_group(pod, &path)?;
        }
    }
    Ok(())
}

/// The files of a volume that shows objects.
fn files_of(
    pod: &Pod,
    volume: &Volume,
    data: &Referenced,
    facts: &EnvFacts,
    tokens: &Tokens,
) -> Result<Files, VolumeError> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let mode = mode(source.default_mode, 0o644);
        add_config_map(
            &mut files,
            data,
            &source.name,
            source.items.as_deref(),
            source.optional,
            mode,
        )?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let mode = mode(source.default_mode, 0o644);
        add_secret(
            &mut files,
            data,
            name,
            source.items.as_deref(),
            source.optional,
            mode,
        )?;
    } else if let Some(source) = &volume.downward_api {
        add_downward(
            &mut files,
            pod,
            source.items.as_deref(),
            facts,
            mode(source.default_mode, 0o644),
        )?;
    } else if let Some(source) = &volume.projected {
        let mode = mode(source.default_mode, 0o644);
        for projection in source.sources.iter().flatten() {
            add_projection(
                &mut files,
                pod,
                &volume.name,
                projection,
                data,
                facts,
                tokens,
                mode,
            )?;
        }
    } else {
        return Err(VolumeError::NotBuilt(kind_of(volume)));
    }
    Ok(files)
}

#[allow(
    clippy::too_many_arguments,
    reason = "one call site; a struct would only rename them"
)]
fn add_projection(
    files: &mut Files,
    pod: &Pod,
    volume: &str,
    source: &VolumeProjection,
    data: &Referenced,
    facts: &EnvFacts,
    tokens: &Tokens,
    mode: u32,
) -> Result<(), VolumeError> {
    if let Some(map) = &source.config_map {
        return add_config_map(files, data, &map.name, map.items.as_deref(), map.optional, mode);
    }
    if let Some(map) = &source.secret {
        return add_secret(files, data, &map.name, map.items.as_deref(), map.optional, mode);
    }
    if let Some(downward) = &source.downward_api {
        return add_downward(files, pod, downward.items.as_deref(), facts, mode);
    }
    if let Some(token) = &source.service_account_token {
        let value = tokens.get(&(volume.to_owned(), token.path.clone()));
        let value = value.ok_or_else(|| ConfigError("service account token is missing".into()))?;
        // A token is for one program: only its owner reads it, and the group when the pod has one.
        let group = spec(pod)
            .security_context
            .as_ref()
            .and_then(|security| security.fs_group);
        let mode = if group.is_some() {
            0o640
        } else if runs_as_other(pod) {
            0o644
        } else {
            0o600
        };
        files.insert(token.path.clone(), (value.clone().into_bytes(), mode));
        return Ok(());
    }
    Err(VolumeError::NotBuilt(
        "projected with clusterTrustBundle or podCertificate",
    ))
}

fn runs_as_other(pod: &Pod) -> bool {
    let spec = spec(pod);
    let of_pod = spec
        .security_context
        .as_ref()
        .and_then(|security| security.run_as_user);
    let own =
        |c: &k8s_openapi::api::core::v1::Container| c.security_context.as_ref().and_then(|s| s.run_as_user);
    spec.containers
        .iter()
        .any(|c| own(c).or(of_pod).is_some_and(|user| user != 0))
}

fn mode(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default)
}

fn add_config_map(
    files: &mut Files,
    data: &Referenced,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<(), VolumeError> {
    let Some(map) = config_map(data, name, optional)? else {
        return Ok(());
    };
    let text = map
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map
        .binary_data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()));
    add_items(files, text.chain(binary).collect(), items, optional, mode)
}

fn add_secret(
    files: &mut Files,
    data: &Referenced,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<(), VolumeError> {
    let Some(secret) = secret(data, name, optional)? else {
        return Ok(());
    };
    let all = secret
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()));
    add_items(files, all.collect(), items, optional, mode)
}

fn add_items(
    files: &mut Files,
    all: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode_of_all: u32,
) -> Result<(), VolumeError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        files.extend(all.into_iter().map(|(key, value)| (key, (value, mode_of_all))));
        return Ok(());
    };
    for item in items {
        match all.get(&item.key) {
            Some(value) => {
                files.insert(inside(&item.path)?, (value.clone(), mode(item.mode, mode_of_all)));
            }
            None if optional == Some(true) => {}
            None => {
                return Err(ConfigError(format!("references non-existent config key: {}", item.key)).into());
            }
        }
    }
    Ok(())
}

fn add_downward(
    files: &mut Files,
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    facts: &EnvFacts,
    mode_of_all: u32,
) -> Result<(), VolumeError> {
    for item in items.unwrap_or_default() {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_value(pod, &field.field_path, facts)?,
            (None, Some(resource)) => resource_value(pod, resource, facts)?,
            (None, None) => return Err(ConfigError("a downward API file without a source".into()).into()),
        };
        files.insert(
            inside(&item.path)?,
            (value.into_bytes(), mode(item.mode, mode_of_all)),
        );
    }
    Ok(())
}

/// A path that stays below where it starts.
fn inside(path: &str) -> Result<String, ConfigError> {
    let safe = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if safe && !path.is_empty() {
        Ok(path.to_owned())
    } else {
        Err(ConfigError(format!("invalid path {path:?}")))
    }
}

fn empty_dir(path: &Path, source: &EmptyDirVolumeSource) -> Result<(), VolumeError> {
    let exists = path.exists();
    fs::create_dir_all(path).map_err(at(format!("create {}", path.display())))?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" if exists => return Ok(()),
        "Memory" => mount_memory(path, source)?,
        _ => return Err(VolumeError::NotBuilt("emptyDir with huge pages")),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
        .map_err(at(format!("open up {}", path.display())))
}

fn mount_memory(path: &Path, source: &EmptyDirVolumeSource) -> Result<(), VolumeError> {
    let size = match &source.size_limit {
        None => String::new(),
        Some(limit) => {
            let limit: Quantity = limit
                .0
                .parse()
                .map_err(|e| ConfigError(format!("sizeLimit {:?}: {e}", limit.0)))?;
            format!(",size={}", limit.value())
        }
    };
    let options = format!("mode=777{size}");
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .map_err(|errno| at(format!("mount memory at {}", path.display()))(errno.into()))
}

/// Checks or makes a path of the host, as its type says.
fn host_path(source: &HostPathVolumeSource) -> Result<(), VolumeError> {
    use std::os::unix::fs::FileTypeExt;
    let path = Path::new(&source.path);
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(ConfigError(format!("hostPath {:?} must not contain '..'", source.path)).into());
    }
    let kind = fs::metadata(path).map(|meta| meta.file_type()).ok();
    let wanted = source.type_.as_deref().unwrap_or_default();
    let ok = match (wanted, &kind) {
        ("DirectoryOrCreate", None) => {
            return fs::create_dir_all(path).map_err(at(format!("create {}", path.display())));
        }
        ("FileOrCreate", None) => {
            return fs::File::create(path)
                .map(drop)
                .map_err(at(format!("create {}", path.display())));
        }
        // Without a type nothing is checked; as other runtimes do, what is missing becomes a directory.
        ("", None) => return fs::create_dir_all(path).map_err(at(format!("create {}", path.display()))),
        ("", Some(_)) => true,
        ("DirectoryOrCreate" | "Directory", Some(kind)) => kind.is_dir(),
        ("FileOrCreate" | "File", Some(kind)) => kind.is_file(),
        ("Socket", Some(kind)) => kind.is_socket(),
        ("CharDevice", Some(kind)) => kind.is_char_device(),
        ("BlockDevice", Some(kind)) => kind.is_block_device(),
        _ => false,
    };
    let what = match wanted {
        "Directory" | "DirectoryOrCreate" => "a directory",
        "File" | "FileOrCreate" => "a file",
        "Socket" => "a socket file",
        "CharDevice" => "a character device",
        "BlockDevice" => "a block device",
        _ => "of a known type",
    };
    if ok {
        Ok(())
    } else {
        Err(ConfigError(format!(
            "hostPath type check failed: {} is not {what}",
            source.path
        ))
        .into())
    }
}

/// Shows a new set of files in one step: they are written beside, then a link is swapped to them.
///
/// As upstream lays it out: `..data` links to a directory of its time, and each name links into `..data`.
fn write_atomically(dir: &Path, files: &Files) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let data = dir.join("..data");
    let old = fs::read_link(&data).ok();
    if old.as_ref().is_some_and(|old| is_current(&dir.join(old), files)) {
        return Ok(());
    }
    let stamp = jiff::Timestamp::now().as_nanosecond();
    let new = dir.join(format!("..{stamp}"));
    fs::create_dir(&new)?;
    for (name, (content, mode)) in files {
        let path = new.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
    }
    let link = dir.join("..data_tmp");
    remove_any(&link)?;
    symlink(format!("..{stamp}"), &link)?;
    fs::rename(&link, &data)?;
    link_names(dir, files)?;
    match old {
        Some(old) => remove_any(&dir.join(old)),
        None => Ok(()),
    }
}

/// Makes the links that are missing and removes those whose file is gone.
fn link_names(dir: &Path, files: &Files) -> io::Result<()> {
    let tops: std::collections::BTreeSet<&str> =
        files.keys().filter_map(|name| name.split('/').next()).collect();
    for top in &tops {
        let link = dir.join(top);
        if !link.is_symlink() {
            symlink(Path::new("..data").join(top), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !tops.contains(&*name) {
            remove_any(&dir.join(&*name))?;
        }
    }
    Ok(())
}

fn is_current(dir: &Path, files: &Files) -> bool {
    let same =
        |name: &String, content: &Vec<u8>| fs::read(dir.join(name)).is_ok_and(|found| found == *content);
    count_files(dir) == files.len() && files.iter().all(|(name, (content, _))| same(name, content))
}

fn count_files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                count_files(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

fn remove_any(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Lets the pod's group read and write its volumes.
fn give_to_group(pod: &Pod, path: &Path) -> Result<(), VolumeError> {
    let group = spec(pod)
        .security_context
        .as_ref()
        .and_then(|security| security.fs_group);
    let Some(group) = group.and_then(|group| u32::try_from(group).ok()) else {
        return Ok(());
    };
    chown(path, group).map_err(at(format!("give {} to group {group}", path.display())))
}

fn chown(path: &Path, group: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, None, Some(group))?;
    if path.is_symlink() {
        return Ok(());
    }
    let mode = fs::metadata(path)?.permissions().mode();
    if !path.is_dir() {
        return fs::set_permissions(path, fs::Permissions::from_mode(mode | (mode & 0o600) >> 3));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o2070))?;
    for entry in fs::read_dir(path)? {
        chown(&entry?.path(), group)?;
    }
    Ok(())
}

/// The mounts of a container, from its volumes.
pub(crate) fn mounts(
    pod: &Pod,
    container: &k8s_openapi::api::core::v1::Container,
    dir: &Path,
    envs: &[(String, String)],
) -> Result<Vec<Mount>, ConfigError> {
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        if wanted
            .mount_propagation
            .as_deref()
            .is_some_and(|mode| mode != "None")
        {
            return Err(ConfigError(
                "mountPropagation is not built into this agent yet".into(),
            ));
        }
        let volumes = spec(pod).volumes.iter().flatten();
        let volume = volumes.into_iter().find(|volume| volume.name == wanted.name);
        let volume = volume.ok_or_else(|| ConfigError(format!("volume {:?} not found", wanted.name)))?;
        let root = path_of(dir, volume);
        let sub_path = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => path.clone(),
            (_, Some(expression)) if !expression.is_empty() => super::env::expand(expression, envs),
            _ => String::new(),
        };
        let host_path = if sub_path.is_empty() {
            root
        } else {
            sub_path_in(&root, &sub_path)?
        };
        mounts.push(Mount {
            container_path: PathBuf::from(&wanted.mount_path),
            host_path,
            readonly: wanted.read_only == Some(true),
        });
    }
    Ok(mounts)
}

/// A path below a volume; it is made when missing, and must not lead out of the volume.
fn sub_path_in(root: &Path, sub_path: &str) -> Result<PathBuf, ConfigError> {
    let failed = |error: io::Error| ConfigError(format!("failed to prepare subPath {sub_path:?}: {error}"));
    let path = root.join(inside(sub_path)?);
    if !path.exists() {
        let mut parent = path.as_path();
        while let Some(up) = parent.parent().filter(|_| !parent.exists()) {
            parent = up;
        }
        contained(root, parent).map_err(failed)?;
        fs::create_dir_all(&path).map_err(failed)?;
    }
    contained(root, &path).map_err(failed)
}

fn contained(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let real = path.canonicalize()?;
    if real.starts_with(root.canonicalize()?) {
        return Ok(real);
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "it leads out of the volume",
    ))
}

/// Removes all that a pod has on disk.
pub(crate) fn remove_pod_dir(dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let real = dir.canonicalize()?;
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let Some(point) = line.split_whitespace().nth(4) else {
            continue;
        };
        if Path::new(point).starts_with(&real) {
            umount2(point, MntFlags::MNT_DETACH)?;
        }
    }
    fs::remove_dir_all(dir)
}

fn kind_of(volume: &Volume) -> &'static str {
    let kinds = [
        (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (volume.csi.is_some(), "csi"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.image.is_some(), "image"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.fc.is_some(), "fc"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.flex_volume.is_some(), "flexVolume"),
    ];
    kinds
        .iter()
        .find(|(present, _)| *present)
        .map_or("of an in-tree driver", |(_, name)| name)
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "JSON literals read better by value")]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(volumes: serde_json::Value, container: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "labels": {"a": "b"}},
            "spec": {"nodeName": "n", "volumes": volumes, "containers": [container]},
        }))
        .unwrap()
    }

    fn data(value: &str) -> Referenced {
        let map = serde_json::from_value(json!({"data": {"key": value, "other": "x"}})).unwrap();
        Referenced {
            config_maps: [("conf".to_owned(), Some(map))].into(),
            ..Referenced::default()
        }
    }

    #[test]
    fn config_maps_are_shown_and_swapped_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let pod = pod(
            json!([{"name": "v", "configMap": {"name": "conf"}}]),
            json!({"name": "c"}),
        );
        let volume = dir.path().join("volumes/kubernetes.io~configmap/v");
        let prepare = |value: &str| {
            prepare(
                &pod,
                dir.path(),
                &data(value),
                &EnvFacts::default(),
                &Tokens::new(),
            )
            .unwrap()
        };
        prepare("one");
        assert_eq!(fs::read_to_string(volume.join("key")).unwrap(), "one");
        let first = fs::read_link(volume.join("..data")).unwrap();
        prepare("one");
        assert_eq!(
            fs::read_link(volume.join("..data")).unwrap(),
            first,
            "nothing changed, nothing is written"
        );
        prepare("two");
        assert_eq!(fs::read_to_string(volume.join("key")).unwrap(), "two");
        assert!(!volume.join(first).exists(), "what was shown before is removed");
    }

    #[test]
    fn paths_out_of_a_volume_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let items = json!([{"name": "v", "configMap": {"name": "conf", "items": [{"key": "key", "path": "../evil"}]}}]);
        let bad = prepare(
            &pod(items, json!({"name": "c"})),
            dir.path(),
            &data("x"),
            &EnvFacts::default(),
            &Tokens::new(),
        );
        assert!(bad.unwrap_err().to_string().contains("invalid path"));
        symlink("/etc", dir.path().join("link")).unwrap();
        let error = sub_path_in(dir.path(), "link").unwrap_err().to_string();
        assert!(error.contains("leads out of the volume"), "{error}");
        assert!(sub_path_in(dir.path(), "link/deeper/new").is_err());
        assert!(sub_path_in(dir.path(), "made/here").unwrap().is_dir());
    }

    #[test]
    fn unsupported_volumes_are_named() {
        let pod = pod(
            json!([{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]),
            json!({"name": "c"}),
        );
        let dir = tempfile::tempdir().unwrap();
        let error = prepare(
            &pod,
            dir.path(),
            &Referenced::default(),
            &EnvFacts::default(),
            &Tokens::new(),
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "volume type persistentVolumeClaim is not built into this agent yet"
        );
    }

    #[test]
    fn the_downward_api_shows_fields_as_files() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = json!([{"name": "v", "downwardAPI": {"items": [{"path": "in/labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]);
        let pod = pod(volumes, json!({"name": "c"}));
        prepare(
            &pod,
            dir.path(),
            &Referenced::default(),
            &EnvFacts::default(),
            &Tokens::new(),
        )
        .unwrap();
        let file = dir.path().join("volumes/kubernetes.io~downward-api/v/in/labels");
        assert_eq!(fs::read_to_string(file).unwrap(), "a=\"b\"");
    }

    #[test]
    fn host_path_types_are_checked() {
        let check = |path: &str, kind: &str| {
            host_path(&HostPathVolumeSource {
                path: path.into(),
                type_: Some(kind.into()),
            })
            .map_err(|e| e.to_string())
        };
        assert!(check("/etc", "Directory").is_ok());
        assert_eq!(
            check("/etc", "File").unwrap_err(),
            "hostPath type check failed: /etc is not a file"
        );
        assert!(check("/dev/null", "CharDevice").is_ok());
        assert!(check("/no/such", "Directory").is_err());
        assert!(check("/etc/../root", "").is_err());
    }
}
