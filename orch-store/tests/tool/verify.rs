//! `verify`, and what `restore` does with damage.

use std::path::Path;

use orch_store::{EmbeddedStore, Store};

use crate::support::{Folder, block_on, contents, put, run, store};

fn damage(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] ^= 0x20;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_good_store_is_described_and_not_changed() {
    let folder = Folder::new();
    let path = folder.path("store");
    store(&path, &[("/a", "1"), ("/b", "2")]);
    let before = contents(&path);
    run([&"verify", &path])
        .code(0)
        .tells("state      closed in good order\n")
        .tells("revision   3\n")
        .tells("compacted  0, the oldest that can be read\n")
        .tells("keys       2\n")
        .tells("content    6 B of keys and values\n")
        .tells("file       log-00000000000000000001  ")
        .tells("2 frames\n")
        .tells("good       every checksum is right\n");
    assert_eq!(contents(&path), before);

    run([&"compact", &path]).code(0);
    run([&"verify", &path]).code(0).tells("compacted  3,");
}

#[test]
fn a_torn_end_is_told_from_damage() {
    let folder = Folder::new();
    let path = folder.path("store");
    store(&path, &[("/a", "1")]);
    std::fs::remove_file(path.join("closed")).unwrap();
    let log = path.join("log-00000000000000000001");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.extend(b"half a frame");
    std::fs::write(&log, bytes).unwrap();
    run([&"verify", &path])
        .code(0)
        .tells("1 frames, and 12 bytes of a write that was never acknowledged");
}

#[test]
fn damage_in_a_store_is_found_and_left_alone() {
    let folder = Folder::new();
    let path = folder.path("store");
    block_on(async {
        let store = EmbeddedStore::options()
            .checkpoint_after(0)
            .open(&path)
            .await
            .unwrap();
        for number in 0..40 {
            put(&store, "/a", &format!("{number}{}", "x".repeat(4000))).await;
        }
        let all = store.current_revision().await.unwrap();
        store.compact(all).await.unwrap();
        put(&store, "/b", "1").await;
        store.reclaimed().await;
    });
    let good = contents(&path);
    let names: Vec<_> = good
        .keys()
        .filter(|name| *name != "lock" && *name != "closed")
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("checkpoint-")),
        "{names:?}"
    );
    assert!(names.iter().any(|name| name.starts_with("log-")), "{names:?}");
    for name in names {
        let file = path.join(name);
        for offset in (0..good[name].len()).step_by(good[name].len() / 12) {
            damage(&file, offset);
            let before = contents(&path);
            let said = run([&"verify", &path]);
            // A higher format number cannot be told from a newer version.
            let is_format = (8..12).contains(&offset);
            let said = said.code(if is_format { 2 } else { 1 });
            if !is_format {
                assert!(
                    said.out.starts_with("damaged  ") && said.out.contains(name),
                    "{said:?}"
                );
                said.complains("hint:  nothing was changed");
            }
            assert_eq!(contents(&path), before);
            damage(&file, offset);
        }
        std::fs::rename(&file, folder.path("away")).unwrap();
        run([&"verify", &path]).code(1).tells("is missing");
        std::fs::rename(folder.path("away"), &file).unwrap();
    }
    run([&"verify", &path]).code(0);
}

#[test]
fn a_store_of_a_newer_format_is_not_called_damaged() {
    let folder = Folder::new();
    let path = folder.path("store");
    store(&path, &[("/a", "1")]);
    let log = path.join("log-00000000000000000001");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[8] = 9;
    std::fs::write(&log, bytes).unwrap();
    run([&"verify", &path])
        .code(2)
        .complains("has format 9, this version reads up to 1");
}

/// A backup with more than one block.
fn backup(folder: &Folder) -> std::path::PathBuf {
    let (path, file) = (folder.path("store"), folder.path("x.bak"));
    let value = "x".repeat(200_000);
    store(&path, &[("/a", &value), ("/b", &value), ("/c", "3")]);
    run([&"backup", &path, &file]).code(0);
    file
}

#[test]
fn a_good_backup_is_described() {
    let folder = Folder::new();
    let file = backup(&folder);
    run([&"verify", &file])
        .code(0)
        .tells("revision   4\n")
        .tells("prefix     all\n")
        .tells("keys       3\n")
        .tells("good       every checksum is right\n");
}

#[test]
fn every_flipped_byte_of_a_backup_is_found() {
    let folder = Folder::new();
    let file = backup(&folder);
    let length = std::fs::read(&file).unwrap().len();
    let places = (0..60)
        .chain((60..length - 60).step_by(40_001))
        .chain(length - 60..length);
    for offset in places {
        damage(&file, offset);
        let said = run([&"verify", &file]);
        let code = if (8..12).contains(&offset) { 2 } else { 1 };
        assert_eq!(said.code, code, "byte {offset}: {said:?}");
        if offset % 20 == 0 {
            let new = folder.path("new");
            run([&"restore", &file, &new]).code(2).complains("hint:");
            assert!(!new.exists());
        }
        damage(&file, offset);
    }
    run([&"verify", &file]).code(0);
}

#[test]
fn every_shortened_backup_is_found() {
    let folder = Folder::new();
    let file = backup(&folder);
    let whole = std::fs::read(&file).unwrap();
    let places = (0..50)
        .chain((50..whole.len()).step_by(35_001))
        .chain(whole.len() - 40..whole.len());
    for length in places {
        std::fs::write(&file, &whole[..length]).unwrap();
        run([&"verify", &file]).code(1).tells("damaged");
    }
    std::fs::write(&file, [whole.as_slice(), b"x"].concat()).unwrap();
    run([&"verify", &file]).code(1).tells("something after the end");
}

#[test]
fn blocks_that_changed_places_are_found() {
    let folder = Folder::new();
    let file = backup(&folder);
    let whole = std::fs::read(&file).unwrap();
    // Header of 16 bytes, 3 numbers, an empty prefix and a checksum; then a block and the next.
    let first = 16 + 24 + 4 + 4;
    let length = u32::from_le_bytes(whole[first..first + 4].try_into().unwrap()) as usize;
    let second = first + 8 + length;
    let twice = [&whole[..second], &whole[first..]].concat();
    std::fs::write(&file, twice).unwrap();
    run([&"verify", &file])
        .code(1)
        .tells("a block's checksum is wrong");
    let without = [&whole[..first], &whole[second..]].concat();
    std::fs::write(&file, without).unwrap();
    run([&"verify", &file])
        .code(1)
        .tells("a block's checksum is wrong");
}

#[test]
fn what_is_no_backup_or_a_newer_one_is_named() {
    let folder = Folder::new();
    let file = backup(&folder);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[8] = 2;
    std::fs::write(&file, &bytes).unwrap();
    for said in [
        run([&"verify", &file]),
        run([&"restore", &file, &folder.path("new")]),
    ] {
        said.code(2)
            .complains("has format 2, this version reads up to 1")
            .complains("hint:  use the orch-store of the version that wrote it");
    }
    std::fs::write(&file, "kind: Pod\n").unwrap();
    run([&"restore", &file, &folder.path("new")])
        .code(2)
        .complains("this is not a backup of orch-store");
    run([&"restore", &folder.path("none.bak"), &folder.path("new")])
        .code(2)
        .complains("No such file");
    assert!(!folder.path("new").exists());
}
