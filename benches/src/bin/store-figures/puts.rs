//! Durable guarded writes.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orch_store::EmbeddedStore;

use crate::etcd::Etcd;
use crate::figure::{Aim, Other, median, tell};
use crate::place::Place;
use crate::writer::{self, Until, VALUE};

const WRITERS: [usize; 4] = [1, 16, 64, 256];
const ROUNDS: usize = 35;
const SLICE: Duration = Duration::from_millis(100);

/// What one write of this value takes in our log: header of the frame, fields, key and value.
const FRAME: usize = 24 + 25 + 42 + VALUE;

/// Writes a second in each slice.
#[derive(Default)]
struct Rates {
    ours: Vec<f64>,
    /// Over one connection, and over four.
    etcd: [Vec<f64>; 2],
    bare: Vec<f64>,
    prepared: Vec<f64>,
}

pub(crate) async fn measure(place: &Place, etcd: &Path) -> anyhow::Result<()> {
    for writers in WRITERS {
        eprintln!("guarded puts, writers: {writers}");
        let rates = take(place, etcd, writers).await?;
        report(&rates, writers);
    }
    Ok(())
}

async fn take(place: &Place, etcd: &Path, writers: usize) -> anyhow::Result<Rates> {
    let folder = place.folder("puts")?;
    let store = Arc::new(EmbeddedStore::open(folder.path().join("ours")).await?);
    let server = Etcd::start(etcd, folder.path()).await?;
    let clients = server.connect(4).await?;
    let mut bare = Bare::new(File::create(folder.path().join("bare"))?);
    let mut prepared = Bare::new(File::create(folder.path().join("prepared"))?);
    prepared.prepare()?;
    let mut rates = Rates::default();
    for round in 0..=ROUNDS {
        let prefix = format!("/registry/configmaps/default/{round:02}-");
        let until = Until::Elapsed(SLICE);
        let ours = rate(writer::write(writer::ours(&store, writers), &prefix, until).await?);
        // The bare loops come next to ours: one writer's time is held against theirs.
        let alone = (writers == 1)
            .then(|| Ok::<_, anyhow::Error>((bare.run()?, prepared.run()?)))
            .transpose()?;
        let mut theirs = [0.0; 2];
        for (rate_of, connections) in theirs.iter_mut().zip([1, 4]) {
            let prefix = format!("{prefix}{connections}-");
            let writers = writer::theirs(&clients[..connections], writers);
            *rate_of = rate(writer::write(writers, &prefix, until).await?);
        }
        if round == 0 {
            // The first round is for all to warm up.
            continue;
        }
        rates.ours.push(ours);
        rates.etcd[0].push(theirs[0]);
        rates.etcd[1].push(theirs[1]);
        if let Some((growing, prepared)) = alone {
            rates.bare.push(growing);
            rates.prepared.push(prepared);
        }
    }
    Ok(rates)
}

fn rate((count, elapsed): (u64, Duration)) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

fn report(rates: &Rates, writers: usize) {
    let ours = median(&rates.ours);
    let [one, four] = rates.etcd.each_ref().map(|rates| median(rates));
    let (connections, theirs) = if one >= four {
        ("1 connection", one)
    } else {
        ("4 connections", four)
    };
    let plural = if writers == 1 { "" } else { "s" };
    let name = format!("guarded puts, {writers} writer{plural}");
    let aim = (writers >= 64).then_some(Aim::AtLeast(5.0));
    let other = Other::slower(format!("etcd, {connections}"), ours, theirs);
    tell(&name, ours, "1/s", aim, Some(&other));
    if writers > 1 {
        return;
    }
    // Each slice is held against its neighbour of the same round.
    let ours = 1e6 / ours;
    for (name, bare, aim) in [
        ("bare fdatasync loop", &rates.bare, Some(Aim::AtMost(1.2))),
        ("bare loop within a written file", &rates.prepared, None),
    ] {
        let times: Vec<f64> = rates
            .ours
            .iter()
            .zip(bare)
            .map(|(ours, bare)| bare / ours)
            .collect();
        let other = Other {
            name: name.to_owned(),
            value: 1e6 / median(bare),
            ratio: median(&times),
        };
        tell("time of a guarded put, 1 writer", ours, "us", aim, Some(&other));
    }
}

/// Writes and waits for the disk, again and again.
struct Bare {
    file: File,
    bytes: Vec<u8>,
    /// How often the bytes fit into what was written before; 0 when the file grows.
    room: usize,
    written: usize,
}

impl Bare {
    fn new(file: File) -> Self {
        Self {
            file,
            bytes: vec![b'x'; FRAME],
            room: 0,
            written: 0,
        }
    }

    /// Fills the file first, so that later writes change neither its size nor its extents.
    fn prepare(&mut self) -> anyhow::Result<()> {
        let size = 64 * 1024 * 1024;
        self.file.write_all(&vec![0; size])?;
        self.file.sync_all()?;
        self.room = size / FRAME;
        self.rewind()
    }

    fn rewind(&mut self) -> anyhow::Result<()> {
        use std::io::Seek;
        self.file.rewind()?;
        Ok(())
    }

    /// One slice; writes a second.
    fn run(&mut self) -> anyhow::Result<f64> {
        let began = Instant::now();
        let mut count = 0;
        while began.elapsed() < SLICE {
            if self.room > 0 && self.written >= self.room {
                self.rewind()?;
                self.written = 0;
            }
            self.file.write_all(&self.bytes)?;
            self.file.sync_data()?;
            self.written += 1;
            count += 1;
        }
        Ok(rate((count, began.elapsed())))
    }
}
