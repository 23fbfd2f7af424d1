//! A kubectl, old or current, against a server on loopback.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use orch_api::testkit::TestServer;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

pub(crate) const BOTH: [&str; 2] = ["kubectl-debian", "kubectl-current"];

fn program(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let program = target.join("peers").join(name);
    assert!(
        program.is_file(),
        "{} is missing: run `cargo xtask setup` once",
        program.display()
    );
    program
}

/// A server, a kubectl, and a directory with its configuration and cache.
pub(crate) struct Try {
    _server: TestServer,
    pub(crate) directory: TempDir,
    program: PathBuf,
}

impl Try {
    pub(crate) async fn new(name: &str) -> Self {
        let server = TestServer::start().await;
        let directory = TempDir::new().expect("a directory");
        let kubeconfig = server.kubeconfig().await;
        std::fs::write(directory.path().join("config"), kubeconfig).expect("a written file");
        Self {
            _server: server,
            directory,
            program: program(name),
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("KUBECONFIG", self.directory.path().join("config"))
            .env("HOME", self.directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The status, and all that it printed.
    pub(crate) async fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.command(arguments).output().await.expect("kubectl starts");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8(text).expect("kubectl prints text"),
        )
    }

    pub(crate) async fn ok(&self, arguments: &[&str]) -> String {
        let (success, text) = self.run(arguments).await;
        assert!(success, "{arguments:?}: {text}");
        text
    }

    pub(crate) async fn fails(&self, arguments: &[&str]) -> String {
        let (success, text) = self.run(arguments).await;
        assert!(!success, "{arguments:?} worked: {text}");
        text
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["-o", "json"]].concat()).await;
        serde_json::from_str(&text).expect("JSON")
    }

    /// A file of that name in the directory, and its path.
    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).expect("a written file");
        path.into_os_string().into_string().expect("a path of text")
    }

    pub(crate) fn file(&self, content: &Value) -> String {
        self.write("object.json", &content.to_string())
    }
}
