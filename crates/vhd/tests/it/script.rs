//! A random session of writes, discards and flushes, and what a crash at any point of it may leave.

use std::collections::BTreeSet;

use opengcs_vhd::testing::MemoryFile;
use opengcs_vhd::{Access, Disk, Error, Result};
use positioned_io::WriteAt;

use crate::vhdx::{WRITE, read};

pub(crate) const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Places in each mebibyte that are looked at.
const PROBES: [u64; 5] = [0, 512, 40 << 10, 512 << 10, MIB - 512];

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sectors from here, this many, with a value that no other step writes.
    Write(u64, u64, u8),
    Discard(u64, u64),
    Flush,
}

/// What each probed sector may hold, in the order of the disk.
pub(crate) type Allowed = Vec<(u64, BTreeSet<u8>)>;

pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A script for a disk of this size, the same for the same seed.
pub(crate) fn script(seed: u64, size: u64, steps: usize) -> Vec<Step> {
    let mut dice = Dice(seed.wrapping_mul(77).wrapping_add(5));
    let mut value = 100;
    (0..steps)
        .map(|_| {
            let unit = dice.below(size.div_ceil(MIB)) * MIB;
            match dice.below(8) {
                0..4 => {
                    value += 1;
                    let probe = PROBES[dice.below(5) as usize];
                    let at = (unit + probe).min(size - SECTOR);
                    let most = if dice.below(4) == 0 { 2500 } else { 20 };
                    let count = (1 + dice.below(most)).min((size - at) / SECTOR);
                    Step::Write(at, count, value)
                }
                4 => Step::Discard(unit, size.min(unit + MIB * (1 + dice.below(3)))),
                5 => {
                    let from = unit + SECTOR * dice.below(100);
                    let upto = from + SECTOR * (1 + dice.below(3000));
                    Step::Discard(from.min(size), upto.min(size))
                }
                _ => Step::Flush,
            }
        })
        .collect()
}

pub(crate) fn nothing(size: u64) -> Allowed {
    (0..size.div_ceil(MIB))
        .flat_map(|unit| PROBES.map(|probe| unit * MIB + probe))
        .filter(|at| at + SECTOR <= size)
        .map(|at| (at, BTreeSet::from([0])))
        .collect()
}

/// The disk as it is now, where each probe holds one value.
pub(crate) fn look(disk: &Disk<MemoryFile>) -> Allowed {
    let mut found = nothing(disk.virtual_size());
    for (at, values) in &mut found {
        let bytes = read(disk, *at, 512);
        assert!(
            bytes.iter().all(|byte| *byte == bytes[0]),
            "a sector at {at} is torn"
        );
        *values = BTreeSet::from([bytes[0]]);
    }
    found
}

impl Step {
    pub(crate) fn perform(&self, disk: &mut Disk<MemoryFile>) -> Result<()> {
        match *self {
            Self::Write(at, count, value) => disk
                .write_all_at(at, &vec![value; (count * SECTOR) as usize])
                .map_err(|error| error.downcast::<Error>().expect("an error of the crate")),
            Self::Discard(from, upto) => disk.discard(from..upto),
            Self::Flush => disk.flush(),
        }
    }

    /// What the step adds to what may be there, or settles. `now` is what a reader sees.
    pub(crate) fn model(&self, now: &mut Allowed, allowed: &mut Allowed) {
        let (from, upto, value) = match *self {
            Self::Write(at, count, value) => (at, at + count * SECTOR, value),
            Self::Discard(from, upto) => (from, upto, 0),
            Self::Flush => {
                allowed.clone_from(now);
                return;
            }
        };
        for ((at, now), (_, may)) in now.iter_mut().zip(allowed) {
            if (from..upto).contains(at) {
                *now = BTreeSet::from([value]);
                may.insert(value);
            }
        }
    }
}

/// Whether all that was found may be there.
pub(crate) fn fits(found: &Allowed, allowed: &Allowed) -> std::result::Result<(), String> {
    for ((at, found), (_, may)) in found.iter().zip(allowed) {
        if !found.is_subset(may) {
            return Err(format!("at {at}: {found:?}, but only {may:?} may be"));
        }
    }
    Ok(())
}

pub(crate) fn either(a: &Allowed, b: &Allowed) -> Allowed {
    a.iter()
        .zip(b)
        .map(|((at, a), (_, b))| (*at, a | b))
        .collect()
}

/// What is allowed after each operation of the storage.
pub(crate) struct Timeline {
    /// The operations done after each step, and what is allowed then.
    marks: Vec<(usize, Allowed)>,
}

impl Timeline {
    /// Runs the steps on a disk over `file`, whose history begins here.
    pub(crate) fn record(
        file: &MemoryFile,
        disk: &mut Disk<MemoryFile>,
        before: &Allowed,
        steps: &[Step],
    ) -> (Self, Allowed) {
        let (mut now, mut allowed) = (before.clone(), before.clone());
        let mut marks = vec![(0, allowed.clone())];
        for step in steps {
            step.perform(disk).unwrap();
            step.model(&mut now, &mut allowed);
            marks.push((file.operations(), allowed.clone()));
        }
        assert_eq!(fits(&look(disk), &now), Ok(()));
        (Self { marks }, now)
    }

    /// What may be there after `count` operations.
    pub(crate) fn allowed(&self, count: usize) -> Allowed {
        let done = self.marks.partition_point(|(after, _)| *after <= count);
        let (_, before) = &self.marks[done.saturating_sub(1)];
        match self.marks.get(done) {
            Some((_, after)) => either(before, after),
            None => before.clone(),
        }
    }
}

/// Opens what a crash has left, for reading and for writing; both see the same, it is allowed,
/// and the disk can be used on.
pub(crate) fn judge(left: &MemoryFile, allowed: &Allowed, what: &str) {
    let disk = Disk::open(left.snapshot(), Access::ReadOnly)
        .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let found = look(&disk);
    assert_eq!(fits(&found, allowed), Ok(()), "{what}");
    let mut disk = Disk::open(left.snapshot(), WRITE).unwrap();
    assert_eq!(fits(&look(&disk), &found), Ok(()), "{what}, for writing");
    let last = disk.virtual_size() - MIB;
    disk.discard(last..disk.virtual_size()).unwrap();
    disk.write_all_at(0, &[1; 512]).unwrap();
    disk.write_all_at(last, &[2; 512]).unwrap();
    let disk = Disk::open(disk.finish().unwrap(), Access::ReadOnly).unwrap();
    assert_eq!(read(&disk, 0, 512), [1; 512]);
    assert_eq!(read(&disk, last, 1024), [[2; 512], [0; 512]].concat());
    let kept = found.iter().zip(look(&disk));
    for ((at, before), (_, after)) in kept.filter(|((at, _), _)| (1..last).contains(at)) {
        assert_eq!(*before, after, "{what}: at {at} after use");
    }
}
