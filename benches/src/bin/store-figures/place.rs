use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

/// A folder of this run's own on a real disk, removed in the end.
pub(crate) struct Place {
    path: PathBuf,
}

impl Place {
    pub(crate) fn new(parent: &Path) -> anyhow::Result<Self> {
        let path = parent.join(format!("store-data-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let place = Self {
            path: path.canonicalize()?,
        };
        if statfs(&place.path)?.filesystem_type() == TMPFS_MAGIC {
            bail!(
                "{} lies in memory: name a folder on a disk with --data",
                path.display()
            );
        }
        Ok(place)
    }

    /// An empty folder, removed when it is dropped.
    pub(crate) fn folder(&self, name: &str) -> anyhow::Result<Self> {
        let path = self.path.join(name);
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of all files below.
    pub(crate) fn bytes(&self) -> u64 {
        bytes(&self.path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// What a folder takes on disk. Files may go while it is looked at.
fn bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, found)| {
            if found.is_dir() {
                bytes(&path)
            } else {
                found.blocks() * 512
            }
        })
        .sum()
}
