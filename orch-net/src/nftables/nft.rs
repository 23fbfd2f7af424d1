//! The one door to the `nft` program.

use std::process::Stdio;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs nftables transactions. [`NftProgram`] is the real one, [`FakeNft`](super::FakeNft) evaluates them in memory.
#[async_trait]
pub trait Nft: Send + Sync {
    /// Applies a script as one transaction: all of it or nothing.
    ///
    /// # Errors
    /// [`NftError`], having changed nothing.
    async fn apply(&self, script: &str) -> Result<(), NftError>;

    /// Whether the kernel would take the script. Changes nothing.
    ///
    /// # Errors
    /// [`NftError`] if it would not.
    async fn check(&self, script: &str) -> Result<(), NftError>;

    /// The rules of a chain, as listed; elements of sets are left out.
    ///
    /// # Errors
    /// [`NftError::NotFound`] if there is no such chain, else what went wrong.
    async fn list_chain(&self, family: &str, table: &str, chain: &str) -> Result<String, NftError>;
}

/// Why `nft` failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// The program could not be started.
    #[error("run nft: {0} (Debian: apt-get install nftables)")]
    Missing(String),
    /// The process may not change the firewall.
    #[error("nft: operation not permitted: needs root or CAP_NET_ADMIN")]
    NotPermitted,
    /// A table, chain, set or element that a command names is not there.
    #[error("nft: not found: {0}")]
    NotFound(String),
    /// Something is there that must not be, or differs.
    #[error("nft: exists: {0}")]
    Exists(String),
    /// The kernel lacks a feature.
    #[error("nft: not supported: {0}")]
    Unsupported(String),
    /// Anything else; the text is what nft said.
    #[error("nft: {0}")]
    Failed(String),
}

impl NftError {
    /// Whether the ruleset was not what the caller believed: writing all of it anew helps.
    #[must_use]
    pub fn is_drift(&self) -> bool {
        matches!(self, Self::NotFound(_) | Self::Exists(_))
    }

    /// What a failed run means, by its stderr. The kernel's answers arrive as `strerror` texts.
    fn classify(stderr: &str) -> Self {
        let text = stderr.trim().chars().take(2000).collect::<String>();
        if stderr.contains("Operation not permitted") {
            Self::NotPermitted
        } else if stderr.contains("No such file or directory") {
            Self::NotFound(text)
        } else if stderr.contains("File exists") {
            Self::Exists(text)
        } else if stderr.contains("Operation not supported") || stderr.contains("Protocol not supported") {
            Self::Unsupported(text)
        } else {
            Self::Failed(text)
        }
    }
}

/// The `nft` program of the host.
#[derive(Clone, Debug)]
pub struct NftProgram {
    path: String,
}

impl Default for NftProgram {
    fn default() -> Self {
        Self {
            path: "nft".to_owned(),
        }
    }
}

impl NftProgram {
    /// The program at a path, or of a name to be found in `PATH`.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }

    async fn run(&self, args: &[&str], input: &str) -> Result<String, NftError> {
        let missing = |error: std::io::Error| NftError::Missing(format!("{}: {error}", self.path));
        let mut child = Command::new(&self.path)
            .args(args)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(missing)?;
        let mut stdin = child.stdin.take();
        let feed = async {
            if let Some(stdin) = stdin.as_mut() {
                stdin.write_all(input.as_bytes()).await?;
            }
            drop(stdin.take());
            Ok::<_, std::io::Error>(())
        };
        let (fed, output) = tokio::join!(feed, child.wait_with_output());
        let output = output.map_err(missing)?;
        if !output.status.success() {
            return Err(NftError::classify(&String::from_utf8_lossy(&output.stderr)));
        }
        fed.map_err(|error| NftError::Failed(format!("write script: {error}")))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[async_trait]
impl Nft for NftProgram {
    async fn apply(&self, script: &str) -> Result<(), NftError> {
        self.run(&["-f", "-"], script).await.map(drop)
    }

    async fn check(&self, script: &str) -> Result<(), NftError> {
        self.run(&["-c", "-f", "-"], script).await.map(drop)
    }

    async fn list_chain(&self, family: &str, table: &str, chain: &str) -> Result<String, NftError> {
        self.run(&["-t", "list", "chain", family, table, chain], "").await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stderr_is_told_apart() {
        let not_found = "Error: Could not process rule: No such file or directory\nadd rule ip a b accept\n";
        assert!(matches!(NftError::classify(not_found), NftError::NotFound(_)));
        assert!(matches!(
            NftError::classify("Error: Could not process rule: File exists"),
            NftError::Exists(_)
        ));
        let denied = "netlink: Error: cache initialization failed: Operation not permitted";
        assert_eq!(NftError::classify(denied), NftError::NotPermitted);
        assert!(matches!(
            NftError::classify("Error: syntax error, unexpected '}'"),
            NftError::Failed(_)
        ));
    }

    #[tokio::test]
    async fn a_missing_program_says_how_to_get_it() {
        let error = NftProgram::new("/nonexistent/nft").check("").await.unwrap_err();
        assert!(error.to_string().contains("apt-get install nftables"), "{error}");
    }
}
