//! Places that are none.

use std::os::unix::fs::PermissionsExt;

use orch_store::EmbeddedStore;

use crate::support::{Folder, block_on, run, store};

#[test]
fn a_folder_without_a_store_is_refused_and_not_made() {
    let folder = Folder::new();
    let missing = folder.path("missing");
    let file = folder.path("file.bak");
    for said in [
        run([&"get", &missing, &"/a"]),
        run([&"list", &missing]),
        run([&"watch", &missing]),
        run([&"backup", &missing, &file]),
        run([&"verify", &missing]),
        run([&"compact", &missing]),
        run([&"copy", &missing, &folder.path("to")]),
    ] {
        said.code(2).complains("there is no store in").complains("hint:");
    }
    assert!(!missing.exists() && !file.exists() && !folder.path("to").exists());
}

#[test]
fn what_was_meant_as_an_etcd_is_explained() {
    run([&"list", &"localhost:2379"])
        .code(2)
        .complains("hint:  an etcd is named with its scheme: http://localhost:2379");
    run([&"list", &"etcd://localhost:2379"])
        .code(2)
        .complains("begins with http://");
    run([&"list", &"http://localhost"])
        .code(2)
        .complains("is not HOST:PORT");
    run([&"list", &"http://a:1,https://b:2"])
        .code(2)
        .complains("the same scheme");
    run([&"list", &""])
        .code(2)
        .complains("a folder or http(s)://HOST:PORT is needed");
}

#[test]
fn flags_for_an_etcd_are_not_dropped_in_silence() {
    let folder = Folder::new();
    let path = folder.path("store");
    store(&path, &[("/a", "1")]);
    for flags in [["--cacert", "ca.crt"], ["--user", "me"]] {
        run([&"list", &path, &flags[0], &flags[1]])
            .code(2)
            .complains("are for an etcd, and none is named");
    }
    let file = folder.path("x.bak");
    run([&"backup", &path, &file]).code(0);
    run([&"restore", &file, &"http://localhost:1", &"--bump-revision", &"5"])
        .code(2)
        .complains("--bump-revision is for a folder");
}

#[cfg(not(feature = "etcd"))]
#[test]
fn a_build_without_etcd_says_how_to_get_one_with() {
    run([&"list", &"http://localhost:2379"])
        .code(2)
        .complains("--features etcd");
}

#[test]
fn a_store_in_use_can_be_read_but_not_taken() {
    let folder = Folder::new();
    let (path, other) = (folder.path("store"), folder.path("other"));
    store(&path, &[("/a", "1")]);
    store(&other, &[]);
    let file = folder.path("file.bak");
    run([&"backup", &path, &file]).code(0);
    let _open = block_on(EmbeddedStore::open(&path)).unwrap();
    assert_eq!(run([&"get", &path, &"/a"]).code(0).out, "1");
    run([&"list", &path]).code(0);
    run([&"verify", &path])
        .code(0)
        .tells("in use, or its process died");
    run([&"backup", &path, &file, &"--force"]).code(0);
    run([&"copy", &path, &other]).code(0);
    for said in [
        run([&"compact", &path]),
        run([&"restore", &file, &path]),
        run([&"restore", &file, &path, &"--merge"]),
        run([&"copy", &other, &path]),
    ] {
        said.code(2)
            .complains("is in use by another store")
            .complains("hint:  a process has this store open");
    }
}

#[test]
fn passwords_are_never_shown() {
    for said in [
        run([&"--user", &":hunter2", &"list", &"x"]),
        run([&"--user", &"me:hunter2", &"list", &"http://127.0.0.1:1"]),
        run([&"--help"]),
    ] {
        // clap repeats a bad argument, as the shell that it was typed into did.
        let is_echo = said.err.contains("invalid value ':hunter2'");
        assert!(is_echo || !format!("{said:?}").contains("hunter2"), "{said:?}");
    }
    let output = crate::support::tool()
        .env("ORCH_STORE_PASSWORD", "hunter2")
        .arg("--help")
        .output()
        .unwrap();
    assert!(!String::from_utf8(output.stdout).unwrap().contains("hunter2"));
}

#[test]
fn a_backup_is_no_store_and_a_store_is_no_backup() {
    let folder = Folder::new();
    let (path, file) = (folder.path("store"), folder.path("file.bak"));
    store(&path, &[("/a", "1")]);
    run([&"backup", &path, &file]).code(0);
    run([&"list", &file])
        .code(2)
        .complains("hint:  a store is a folder");
    run([&"restore", &path, &folder.path("new")])
        .code(2)
        .complains("cannot read the backup");
    run([&"backup", &path, &path, &"--force"])
        .code(2)
        .complains("is a folder, a file is needed");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}
