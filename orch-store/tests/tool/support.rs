//! Runs the example that cargo built beside this test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use orch_store::{EmbeddedStore, KeyValue, ListOptions, Store};

pub(crate) fn tool() -> Command {
    let test = std::env::current_exe().expect("a test knows its own path");
    let path = test
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE/deps/TEST")
        .join("examples/orch-store");
    assert!(
        path.is_file(),
        "{} is not built: `cargo build -p orch-store --all-features --examples` builds it",
        path.display()
    );
    let mut command = Command::new(path);
    command.env_remove("ORCH_STORE_PASSWORD");
    command
}

/// What a run said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("the tool ends by itself"),
            out: String::from_utf8(output.stdout).expect("it prints text"),
            err: String::from_utf8(output.stderr).expect("it prints text"),
        }
    }
}

impl Said {
    /// It must have ended with this status.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Its error must say this.
    #[track_caller]
    pub(crate) fn complains(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} is missing in {self:#?}");
        self
    }

    /// Its output must say this.
    #[track_caller]
    pub(crate) fn tells(self, text: &str) -> Self {
        assert!(self.out.contains(text), "{text:?} is missing in {self:#?}");
        self
    }
}

/// Runs the tool with these words, among which there may be paths.
pub(crate) fn run<const N: usize>(words: [&dyn AsRef<std::ffi::OsStr>; N]) -> Said {
    let mut command = tool();
    for word in words {
        command.arg(word);
    }
    command.output().expect("the tool starts").into()
}

/// A temporary folder, and paths in it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// On a thread of its own, so that asynchronous tests may use what is built on it too.
pub(crate) fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(future)
    };
    std::thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Makes a store with these keys, each written once, and closes it.
pub(crate) fn store(path: &Path, keys: &[(&str, &str)]) {
    block_on(async {
        let store = EmbeddedStore::open(path).await.unwrap();
        for (key, value) in keys {
            put(&store, key, value).await;
        }
    });
}

/// Writes a key, whatever is there.
pub(crate) async fn put(store: &dyn Store, key: &str, value: &str) -> KeyValue {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    match store.get(key_bytes(&key), None).await.unwrap().kv {
        None => store.create(key, value, None).await.unwrap(),
        Some(kv) => store.update(key, value, kv.mod_revision, None).await.unwrap(),
    }
}

fn key_bytes(key: &bytes::Bytes) -> &[u8] {
    key
}

/// All keys of a store that nobody has open.
pub(crate) fn items(path: &Path) -> Vec<KeyValue> {
    block_on(async {
        let snapshot = EmbeddedStore::snapshot_of(path).await.unwrap();
        snapshot.list(b"", &ListOptions::default()).unwrap().items
    })
}

/// Its keys and values, as text.
pub(crate) fn texts(path: &Path) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    items(path)
        .iter()
        .map(|kv| (text(&kv.key), text(&kv.value)))
        .collect()
}

/// Every file's name and bytes.
pub(crate) fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = path.read_dir().unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}
