//! A disk whose power fails: what was not synced is then lost, torn or reordered.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Cursor};
use std::sync::Arc;

use orch_store::disk::{Disk, DiskFile};
use parking_lot::Mutex;

/// What a disk writes wholly or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Default)]
pub(crate) struct FragileDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    files: HashMap<u64, Content>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the last sync.
    unsynced: Vec<NameChange>,
    next_id: u64,
    /// How many more operations until the power fails.
    fuse: Option<u64>,
    /// How many more bytes fit.
    space: Option<usize>,
    /// Whether syncing a file fails.
    broken: bool,
    /// Whether room behind the end of files is made when asked for.
    makes_room: bool,
}

#[derive(Clone, Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

impl FragileDisk {
    /// The power fails with the operation after so many.
    pub(crate) fn light_fuse(&self, operations: u64) {
        self.inner.lock().fuse = Some(operations);
    }

    /// Lets only so many bytes more be written, or any number.
    pub(crate) fn set_space(&self, bytes: Option<usize>) {
        self.inner.lock().space = bytes;
    }

    /// Lets the syncing of files fail from now on.
    pub(crate) fn break_sync(&self) {
        self.inner.lock().broken = true;
    }

    /// Lets room be made behind the end of files.
    pub(crate) fn make_room(&self) {
        self.inner.lock().makes_room = true;
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.inner.lock().fuse == Some(0)
    }

    /// What the disk holds when the power is back.
    pub(crate) fn after_power_loss(&self, random: &mut fastrand::Rng) -> Self {
        let inner = self.inner.lock();
        let mut names = inner.durable_names.clone();
        for change in &inner.unsynced {
            if random.bool() {
                change.apply(&mut names);
            }
        }
        let files = inner.files.iter();
        let files = files.map(|(id, content)| (*id, Content::settled(content.torn(random))));
        Self::with(names, files.collect(), inner.next_id)
    }

    /// What the disk holds when only the process died.
    pub(crate) fn after_process_death(&self) -> Self {
        let inner = self.inner.lock();
        // It is still not synced: a power loss after this one can take it.
        let disk = Self::with(inner.durable_names.clone(), inner.files.clone(), inner.next_id);
        {
            let mut copy = disk.inner.lock();
            copy.names = inner.names.clone();
            copy.unsynced = inner.unsynced.clone();
        }
        disk
    }

    /// All files and their bytes.
    pub(crate) fn image(&self) -> BTreeMap<String, Vec<u8>> {
        let inner = self.inner.lock();
        let names = inner.names.iter();
        names
            .map(|(name, id)| (name.clone(), inner.files[id].current.clone()))
            .collect()
    }

    /// A disk with these files.
    pub(crate) fn from_image(image: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut names = BTreeMap::new();
        let mut files = HashMap::new();
        for (id, (name, bytes)) in (0..).zip(image) {
            names.insert(name.clone(), id);
            files.insert(id, Content::settled(bytes.clone()));
        }
        let next = names.len() as u64;
        Self::with(names, files, next)
    }

    fn with(names: BTreeMap<String, u64>, files: HashMap<u64, Content>, next_id: u64) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                files,
                durable_names: names.clone(),
                names,
                next_id,
                ..Inner::default()
            })),
        }
    }
}

impl Content {
    fn settled(bytes: Vec<u8>) -> Self {
        Self {
            durable: bytes.clone(),
            current: bytes,
        }
    }

    /// Each sector that was not synced is as before, as it should be, or zero; so is the length.
    fn torn(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let (old, new) = (&self.durable, &self.current);
        let equal = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        let longest = old.len().max(new.len());
        let length = match random.u8(..3) {
            0 => old.len(),
            1 => new.len(),
            _ => random.usize(old.len().min(new.len())..=longest),
        };
        let mut bytes = vec![0; longest];
        bytes[..equal].copy_from_slice(&old[..equal]);
        let mut start = equal;
        while start < longest {
            let end = ((start / SECTOR + 1) * SECTOR).min(longest);
            let source = match random.u8(..4) {
                0 => Some(old),
                1 => None,
                _ => Some(new),
            };
            if let Some(source) = source {
                let end = end.min(source.len());
                if start < end {
                    bytes[start..end].copy_from_slice(&source[start..end]);
                }
            }
            start = end;
        }
        bytes.truncate(length);
        bytes
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Set(name, id) => {
                names.insert(name.clone(), *id);
            }
            Self::Rename(from, to, id) => {
                names.remove(from);
                names.insert(to.clone(), *id);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Inner {
    /// Counts an operation; an error means that the power is off.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// Whether this operation is the last: it happens, but its caller never learns of it.
    fn outcome(&self) -> io::Result<()> {
        match self.fuse {
            Some(0) => Err(io::Error::other("the power went off")),
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: NameChange) -> io::Result<()> {
        self.step()?;
        change.apply(&mut self.names);
        self.unsynced.push(change);
        self.outcome()
    }

    fn id(&self, name: &str) -> io::Result<u64> {
        let found = self.names.get(name).copied();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for FragileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.inner.lock();
        let id = match inner.names.get(name).copied() {
            Some(id) => {
                inner.step()?;
                id
            }
            None => {
                let id = inner.next_id;
                inner.next_id += 1;
                inner.files.insert(id, Content::default());
                inner.change(NameChange::Set(name.into(), id))?;
                id
            }
        };
        inner.files.get_mut(&id).unwrap().current.clear();
        Ok(Box::new(FragileFile::new(self, id, 0)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.inner.lock();
        let id = inner.id(name)?;
        Ok(Box::new(FragileFile::new(
            self,
            id,
            inner.files[&id].current.len(),
        )))
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn io::Read + Send>> {
        let inner = self.inner.lock();
        let bytes = inner.files[&inner.id(name)?].current.clone();
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let id = inner.id(from)?;
        inner.change(NameChange::Rename(from.into(), to.into(), id))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.id(name)?;
        inner.change(NameChange::Remove(name.into()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.step()?;
        inner.outcome()?;
        inner.durable_names = inner.names.clone();
        inner.unsynced.clear();
        Ok(())
    }
}

struct FragileFile {
    disk: FragileDisk,
    id: u64,
    /// Where the next bytes go; behind it there may be room.
    end: usize,
}

impl FragileFile {
    fn new(disk: &FragileDisk, id: u64, end: usize) -> Self {
        let disk = disk.clone();
        Self { disk, id, end }
    }
}

impl DiskFile for FragileFile {
    /// Counts against the space also within room, as on a disk that writes nothing in place.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        inner.step()?;
        let fits = inner.space.unwrap_or(usize::MAX).min(bytes.len());
        if let Some(space) = &mut inner.space {
            *space -= fits;
        }
        let content = inner.files.get_mut(&self.id).unwrap();
        let end = self.end + fits;
        if content.current.len() < end {
            content.current.resize(end, 0);
        }
        content.current[self.end..end].copy_from_slice(&bytes[..fits]);
        if fits < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.end = end;
        inner.outcome()
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        if !inner.makes_room {
            return Ok(());
        }
        inner.step()?;
        if inner.space.is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = inner.files.get_mut(&self.id).unwrap();
        content.current.resize(self.end + bytes as usize, 0);
        inner.outcome()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        inner.step()?;
        let content = inner.files.get_mut(&self.id).unwrap();
        content.current.truncate(length as usize);
        self.end = length as usize;
        inner.outcome()
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        inner.step()?;
        inner.outcome()?;
        if inner.broken {
            return Err(io::Error::other("the disk is broken"));
        }
        let content = inner.files.get_mut(&self.id).unwrap();
        content.durable = content.current.clone();
        Ok(())
    }
}
