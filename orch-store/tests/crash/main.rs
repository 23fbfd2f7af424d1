//! The embedded store over disks that lose power, fill up, break and rot.
//!
//! Every failure names the seed that shows it again: put it into the test's range. (Threads take part, so it may take a few
//! attempts.)

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod disk;
mod witness;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use orch_store::{EmbeddedOptions, EmbeddedStore, ListOptions, OpenError, Revision, Store, StoreError};

use self::disk::FragileDisk;
use self::witness::{VOLATILE, Witness, Write, read_until};

const KEYS: usize = 8;

/// Of the keys, those whose newest writes a crash may take, in the lives that have any.
const VOLATILE_KEYS: std::ops::Range<usize> = KEYS..KEYS + 3;

/// Opens over small files that are checkpointed at every chance.
async fn open(disk: &FragileDisk, segment_size: u64) -> Result<EmbeddedStore, OpenError> {
    EmbeddedOptions::default()
        .segment_size(segment_size)
        .checkpoint_after(0)
        .volatile_prefix(VOLATILE)
        .open_on(Arc::new(disk.clone()))
        .await
}

fn key(index: usize) -> Bytes {
    if VOLATILE_KEYS.contains(&index) {
        return format!("{VOLATILE}{index}").into();
    }
    format!("/registry/things/{index}").into()
}

fn value(random: &mut fastrand::Rng) -> Bytes {
    let length = match random.u8(..10) {
        0 => 0,
        1 => random.usize(..20_000),
        _ => random.usize(..700),
    };
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// One random write of one key, told to the witness.
async fn write(store: &dyn Store, index: usize, random: &mut fastrand::Rng) -> Attempt {
    let key = key(index);
    let Ok(read) = store.get(&key, None).await else {
        return Attempt::default();
    };
    let (write, result) = match read.kv {
        Some(kv) if random.u8(..4) == 0 => {
            let deleted = store.delete(&key, Some(kv.mod_revision)).await;
            ((key, None), deleted.map(|deleted| deleted.revision))
        }
        Some(kv) => {
            let value = value(random);
            let update = store.update(key.clone(), value.clone(), kv.mod_revision, None);
            let result = update.await.map(|kv| kv.mod_revision);
            ((key, Some(value)), result)
        }
        None => {
            let value = value(random);
            let result = store.create(key.clone(), value.clone(), None).await;
            ((key, Some(value)), result.map(|kv| kv.mod_revision))
        }
    };
    Attempt(Some((write, result)))
}

#[derive(Default)]
struct Attempt(Option<(Write, Result<Revision, StoreError>)>);

impl Attempt {
    fn tell(self, witness: &mut Witness) {
        match self.0 {
            None => {}
            Some((write, Ok(revision))) => witness.acknowledge(revision, &write),
            Some((write, Err(error))) => witness.fail(&error, write),
        }
    }
}

/// Random writes, alone and together, and compactions, until the disk has failed or `steps` are done.
async fn work(
    store: &dyn Store,
    witness: &mut Witness,
    random: &mut fastrand::Rng,
    steps: usize,
    keys: usize,
    disk: &FragileDisk,
) {
    let mut seen = store.current_revision().await.unwrap();
    for _ in 0..steps {
        if disk.has_failed() {
            break;
        }
        match random.u8(..8) {
            0 => compact(store, witness, random).await,
            1..3 => {
                let writers = (0..keys).map(|index| {
                    let mut random = random.fork();
                    async move { write(store, index, &mut random).await }
                });
                for attempt in join_all(writers.collect::<Vec<_>>()).await {
                    attempt.tell(witness);
                }
            }
            _ => write(store, random.usize(..keys), random).await.tell(witness),
        }
        look(store, witness, &mut seen).await;
    }
}

/// What a watcher has seen must not be lost either.
async fn look(store: &dyn Store, witness: &mut Witness, seen: &mut Revision) {
    let current = store.current_revision().await.unwrap();
    let events = match store.watch(b"", *seen).await {
        Ok(mut watcher) => read_until(watcher.as_mut(), current).await,
        Err(error) => Err(error),
    };
    match events {
        Ok(events) => events.iter().for_each(|event| witness.observe(event)),
        Err(error) => assert!(error.is_compacted(), "{error}"),
    }
    *seen = current;
}

async fn compact(store: &dyn Store, witness: &mut Witness, random: &mut fastrand::Rng) {
    let current = store.current_revision().await.unwrap();
    let revision = Revision(random.u64(witness.compacted.0.0..=current.0));
    witness.compacted.1 = witness.compacted.1.max(revision);
    if store.compact(revision).await.is_ok() {
        witness.compacted.0 = witness.compacted.0.max(revision);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Crash {
    Power,
    Process,
}

/// Works, crashes, recovers and checks, several times over, also crashing in the recovery.
async fn life_with_crashes(seed: u64, keys: usize, crashes: &mut usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut disk = FragileDisk::default();
    let mut witness = Witness::default();
    witness.has_volatile = keys > KEYS;
    let segment_size = random.u64(200..8000);
    for _ in 0..3 {
        if random.bool() {
            disk.make_room();
        }
        disk.light_fuse(random.u64(1..80));
        if let Ok(store) = open(&disk, segment_size).await {
            witness.check(&store).await;
            // With few steps the store is closed in good order before the fuse is burnt.
            let steps = random.usize(..30);
            work(&store, &mut witness, &mut random, steps, keys, &disk).await;
            drop(store);
        }
        let crash = if random.u8(..4) == 0 {
            Crash::Process
        } else {
            Crash::Power
        };
        disk = match crash {
            Crash::Power => disk.after_power_loss(&mut random),
            Crash::Process => disk.after_process_death(),
        };
        *crashes += 1;
    }
    let store = open(&disk, segment_size).await.unwrap();
    witness.check(&store).await;
    work(&store, &mut witness, &mut random, 5, keys, &disk).await;
    drop(store);
    let store = open(&disk, segment_size).await.unwrap();
    witness.check(&store).await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Runs the lives of many seeds; returns the number of crashes.
fn lives(seeds: std::ops::Range<u64>, keys: usize) -> usize {
    let runtime = runtime();
    let mut crashes = 0;
    for seed in seeds {
        let life = std::panic::AssertUnwindSafe(|| {
            runtime.block_on(life_with_crashes(seed, keys, &mut crashes));
        });
        if let Err(panic) = std::panic::catch_unwind(life) {
            eprintln!("the seed is {seed}");
            std::panic::resume_unwind(panic);
        }
    }
    crashes
}

#[test]
fn no_crash_loses_or_halves_a_write_or_reuses_a_revision() {
    assert!(lives(0..300, KEYS) >= 600);
}

/// Among durable writes there are volatile ones, of which a crash may take the newest, but none from before a durable one.
#[test]
fn volatile_writes_go_in_order_and_their_revisions_are_not_reused() {
    assert!(lives(2000..2300, VOLATILE_KEYS.end) >= 600);
}

#[test]
fn nor_do_other_crashes() {
    assert!(lives(1000..1300, KEYS) >= 600);
}

/// A store with a checkpoint, several segments and a clean end, and what it holds.
async fn settled() -> (FragileDisk, Vec<orch_store::KeyValue>) {
    let disk = FragileDisk::default();
    let mut random = fastrand::Rng::with_seed(1);
    let mut witness = Witness::default();
    let store = open(&disk, 700).await.unwrap();
    for round in 0..14 {
        write(&store, round % 4, &mut random).await.tell(&mut witness);
        if round == 8 {
            let current = store.current_revision().await.unwrap();
            store.compact(current).await.unwrap();
        }
    }
    // Dropping waits for the thread that writes checkpoints, but not for it to begin.
    while !disk
        .image()
        .keys()
        .any(|name| name.starts_with("checkpoint") && !name.ends_with("tmp"))
    {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let items = store.list(b"", ListOptions::default()).await.unwrap().items;
    drop(store);
    (disk, items)
}

#[test]
fn damage_anywhere_is_reported_or_harmless_and_destroys_nothing() {
    runtime().block_on(async {
        let (disk, items) = settled().await;
        let image = disk.image();
        let (mut reported, mut harmless) = (0, 0);
        for (name, bytes) in &image {
            for position in 0..bytes.len() {
                let mut damaged = image.clone();
                damaged.get_mut(name).unwrap()[position] ^= 0x41;
                let disk = FragileDisk::from_image(&damaged);
                match open(&disk, 1 << 20).await {
                    Ok(store) => {
                        let page = store.list(b"", ListOptions::default()).await.unwrap();
                        assert_eq!(page.items, items, "{name} at {position}");
                        harmless += 1;
                    }
                    Err(OpenError::Corrupt { .. } | OpenError::NewerFormat { .. }) => {
                        assert_eq!(disk.image(), damaged, "{name} at {position}");
                        reported += 1;
                    }
                    Err(error) => panic!("{name} at {position}: {error}"),
                }
            }
        }
        // Only the mark of the good end may be damaged: it proves the others, nothing proves it.
        assert_eq!(harmless, image["closed"].len());
        assert!(reported > 1000, "{reported} reported");
    });
}

#[test]
fn a_file_that_is_cut_off_is_reported_and_left_alone() {
    runtime().block_on(async {
        let (disk, _) = settled().await;
        let image = disk.image();
        for (name, bytes) in image.iter().filter(|(name, _)| *name != "closed") {
            for length in 0..bytes.len() {
                let mut damaged = image.clone();
                damaged.get_mut(name).unwrap().truncate(length);
                let disk = FragileDisk::from_image(&damaged);
                let result = open(&disk, 1 << 20).await;
                assert!(
                    matches!(result, Err(OpenError::Corrupt { .. })),
                    "{name} at {length}: {result:?}"
                );
                assert_eq!(disk.image(), damaged);
            }
        }
    });
}

#[test]
fn a_missing_file_is_reported() {
    runtime().block_on(async {
        let (disk, items) = settled().await;
        let image = disk.image();
        assert!(image.len() >= 4, "{:?}", image.keys());
        for name in image.keys() {
            let mut damaged = image.clone();
            damaged.remove(name);
            match open(&FragileDisk::from_image(&damaged), 1 << 20).await {
                Ok(store) if name == "closed" => {
                    let page = store.list(b"", ListOptions::default()).await.unwrap();
                    assert_eq!(page.items, items);
                }
                Err(OpenError::Corrupt { .. }) => assert_ne!(name, "closed"),
                other => panic!("{name}: {other:?}"),
            }
        }
    });
}

/// The name and the bytes of the last file of the log.
fn last_segment(image: &BTreeMap<String, Vec<u8>>) -> (String, Vec<u8>) {
    let mut segments = image.iter().filter(|(name, _)| name.starts_with("log-"));
    let (name, bytes) = segments.next_back().unwrap();
    (name.clone(), bytes.clone())
}

#[test]
fn room_that_a_killed_store_leaves_is_no_damage_but_a_frame_of_zeros_is() {
    runtime().block_on(async {
        let disk = FragileDisk::default();
        disk.make_room();
        let store = open(&disk, 1 << 20).await.unwrap();
        let mut ends = Vec::new();
        for index in 0..3 {
            store.create(key(index), "x".into(), None).await.unwrap();
            let (_, bytes) = last_segment(&disk.image());
            ends.push(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        }
        let image = disk.after_process_death().image();
        drop(store);
        let (name, bytes) = last_segment(&image);
        assert!(bytes.len() > ends[2] + 4096, "there is room behind the log");

        let killed = FragileDisk::from_image(&image);
        let store = open(&killed, 1 << 20).await.unwrap();
        let page = store.list(b"", ListOptions::default()).await.unwrap();
        assert_eq!(page.items.len(), 3);
        drop(store);
        let (_, closed) = last_segment(&killed.image());
        assert_eq!(closed, bytes[..ends[2]], "a closed store gives it back");

        // As if the second of three writes had never been: no crash takes one from between others.
        let mut damaged = image.clone();
        damaged.get_mut(&name).unwrap()[ends[0]..ends[1]].fill(0);
        let disk = FragileDisk::from_image(&damaged);
        let error = open(&disk, 1 << 20).await.unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert_eq!(disk.image(), damaged);
    });
}

#[test]
fn a_file_of_a_newer_format_is_left_alone() {
    runtime().block_on(async {
        let (disk, _) = settled().await;
        for name in disk.image().keys().filter(|name| *name != "closed") {
            let mut image = disk.image();
            image.get_mut(name).unwrap()[8] += 1;
            let disk = FragileDisk::from_image(&image);
            match open(&disk, 1 << 20).await {
                Err(OpenError::NewerFormat {
                    file,
                    found: 2,
                    supported: 1,
                }) => {
                    assert_eq!(file, *name);
                }
                other => panic!("{name}: {other:?}"),
            }
            assert_eq!(disk.image(), image);
        }
    });
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    runtime().block_on(async {
        let disk = FragileDisk::default();
        let store = open(&disk, 4096).await.unwrap();
        let first = store.create(key(0), "1".into(), None).await.unwrap();
        for space in [0, 1, 30, 60] {
            disk.set_space(Some(space));
            let error = store
                .update(key(0), vec![b'x'; 5000].into(), first.mod_revision, None)
                .await
                .unwrap_err();
            assert!(matches!(error, StoreError::WriteFailed { .. }), "{error}");
            assert!(store.health().await.is_err());
            let read = store.get(&key(0), None).await.unwrap();
            assert_eq!(read.kv.as_ref(), Some(&first));
            assert_eq!(read.revision, first.mod_revision);
        }
        disk.set_space(None);
        let second = store
            .update(key(0), "2".into(), first.mod_revision, None)
            .await
            .unwrap();
        assert!(store.health().await.is_ok());
        drop(store);
        let store = open(&disk.after_process_death(), 4096).await.unwrap();
        let read = store.get(&key(0), None).await.unwrap();
        assert_eq!(read.kv, Some(second));
    });
}

#[test]
fn a_volatile_write_waits_for_no_disk_and_is_written_later() {
    runtime().block_on(async {
        let disk = FragileDisk::default();
        let store = open(&disk, 4096).await.unwrap();
        let lease = key(VOLATILE_KEYS.start);
        // The first one reserves revisions, for which it has to wait.
        let first = store.create(lease.clone(), "1".into(), None);
        let first = first.await.unwrap();
        disk.set_space(Some(0));
        let second = store.update(lease.clone(), "2".into(), first.mod_revision, None);
        let second = second.await.unwrap();
        assert!(store.create(key(0), "x".into(), None).await.is_err());
        let read = store.get(&lease, None).await.unwrap();
        assert_eq!(read.kv, Some(second.clone()), "it is not taken back");
        disk.set_space(None);
        store.create(key(0), "x".into(), None).await.unwrap();
        let lost = disk.after_power_loss(&mut fastrand::Rng::with_seed(1));
        let store = open(&lost, 4096).await.unwrap();
        let read = store.get(&lease, None).await.unwrap();
        assert_eq!(read.kv, Some(second), "the durable write took it along");
    });
}

#[test]
fn writers_that_relied_on_a_failed_write_are_decided_anew() {
    runtime().block_on(async {
        let disk = FragileDisk::default();
        let store = open(&disk, 1 << 20).await.unwrap();
        for round in 0..50 {
            disk.set_space(Some(0));
            let key = key(round);
            // The first two are staged together; the second is refused because of the first, which then fails.
            let (first, second, _) = tokio::join!(
                store.create(key.clone(), "1".into(), None),
                store.create(key.clone(), "2".into(), None),
                async { disk.set_space(None) },
            );
            let there = store.get(&key, None).await.unwrap().kv;
            for result in [&first, &second] {
                match result {
                    Ok(kv) => assert_eq!(there.as_ref(), Some(kv)),
                    Err(StoreError::AlreadyExists { current }) => {
                        assert_eq!(there.as_ref(), Some(current.as_ref()));
                    }
                    Err(error) => assert!(matches!(error, StoreError::WriteFailed { .. })),
                }
            }
        }
    });
}

#[test]
fn a_disk_that_cannot_sync_ends_writing_but_not_reading() {
    runtime().block_on(async {
        let disk = FragileDisk::default();
        let store = open(&disk, 4096).await.unwrap();
        let first = store.create(key(0), "1".into(), None).await.unwrap();
        disk.break_sync();
        for _ in 0..2 {
            let error = store.create(key(1), "1".into(), None).await.unwrap_err();
            assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
        }
        assert!(matches!(
            store.compact(first.mod_revision).await,
            Err(StoreError::ReadOnly { .. })
        ));
        assert!(store.health().await.is_err());
        let page = store.list(b"", ListOptions::default()).await.unwrap();
        assert_eq!(page.items, [first]);
    });
}
