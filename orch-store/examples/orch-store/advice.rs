//! What to do about an error.

use orch_store::{ImportError, OpenError, StoreError};

use crate::file::FileError;

/// The next step, where there is one worth telling.
pub(crate) fn on(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<OpenError>() {
            return on_open(error);
        }
        if let Some(error) = cause.downcast_ref::<StoreError>() {
            return on_store(error);
        }
        if let Some(error) = cause.downcast_ref::<ImportError>() {
            return on_import(error);
        }
        cause.downcast_ref::<FileError>().and_then(on_file)
    })
}

fn on_open(error: &OpenError) -> Option<String> {
    Some(match error {
        OpenError::Locked { .. } => {
            "a process has this store open, for instance a running cluster: stop it first. \
             get, list, watch, verify, backup and copying from it work beside it"
                .to_owned()
        }
        OpenError::NoStore { path } => match path.to_str() {
            Some(text) if !path.exists() && looks_like_host(text) => {
                format!("an etcd is named with its scheme: http://{text} or https://{text}")
            }
            _ => "a store's folder has files named log-… or checkpoint-…".to_owned(),
        },
        OpenError::NotWritable { .. } => {
            "run it as the user who owns the folder, on a file system that is not read-only".to_owned()
        }
        OpenError::NewerFormat { .. } => {
            "use the orch-store of the version that wrote it, or a later one".to_owned()
        }
        OpenError::Corrupt { .. } => {
            "nothing was changed. Keep the folder as it is, and restore the last backup into another one"
                .to_owned()
        }
        OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory => {
            "a store is a folder. A backup is looked into by restoring it into an empty one".to_owned()
        }
        _ => return None,
    })
}

fn looks_like_host(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn on_store(error: &StoreError) -> Option<String> {
    Some(match error {
        StoreError::Compacted { compacted, .. } => format!(
            "what happened before revision {compacted} is forgotten: `list` shows the state now and its revision, \
             from which `watch --from` goes on"
        ),
        StoreError::FutureRevision { current, .. } => format!("the newest revision is {current}"),
        StoreError::Unavailable { .. } => {
            "are address and port right, does etcd run, and do --cacert, --cert, --key and --user fit it?"
                .to_owned()
        }
        StoreError::Denied { .. } => {
            "--user NAME with ORCH_STORE_PASSWORD logs in; https needs --cacert, and --cert and --key if etcd asks for them"
                .to_owned()
        }
        StoreError::WriteFailed { .. } => {
            "is the disk full? Make room and run the same command again".to_owned()
        }
        StoreError::ReadOnly { .. } => {
            "the disk failed: check it, then `orch-store verify` the folder, before running this again"
                .to_owned()
        }
        StoreError::ValueTooLarge { .. } | StoreError::KeyTooLong { .. } => {
            "this store does not take so large a key or value: leave it out with --prefix or --exclude"
                .to_owned()
        }
        _ => return None,
    })
}

fn on_import(error: &ImportError) -> Option<String> {
    match error {
        ImportError::Open(error) => on_open(error),
        ImportError::NotEmpty { .. } => {
            Some("restore into another folder, or add --merge to keep what is there".to_owned())
        }
        _ => None,
    }
}

fn on_file(error: &FileError) -> Option<String> {
    Some(match error {
        FileError::Damaged { .. } => "nothing was written. Take another backup".to_owned(),
        FileError::NewerFormat { .. } => {
            "use the orch-store of the version that wrote it, or a later one".to_owned()
        }
        FileError::NotABackup => "a backup is written by `orch-store backup`".to_owned(),
        FileError::Io(_) => return None,
    })
}
