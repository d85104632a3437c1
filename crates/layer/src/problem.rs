//! What can be the matter with a tar, and what a conversion does about it.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::error::Name;
use crate::{Error, ErrorKind};

/// How many problems of one kind are kept in words; more are only counted.
const KEPT: u64 = 50;
/// The most bytes of a path that are kept.
const LONGEST: usize = 4 << 10;

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// There will be no image.
    Refused,
    /// The image lacks something that the tar has; the conversion warns of it.
    Changed,
    /// The tar is taken in the usual way, which may not be what its maker meant.
    Noted,
}

/// What is the matter. The names in JSON are these in small letters, with hyphens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// The tar breaks its format, or is none.
    Damaged,
    /// A path climbs above the root.
    EscapingPath,
    /// A name of more than 255 bytes, or a path of more than 16 KiB.
    LongName,
    /// An entry lies below something that is no directory.
    BelowNoDirectory,
    /// A hard link to what is not in the tar before it.
    LateHardLink,
    /// An attribute's value of more than 64 KiB.
    OversizedAttribute,
    /// A device number that does not fit.
    DeviceNumber,
    /// More than the size asked for, or ext4, can hold.
    NoRoom,
    /// Another thing that is not taken.
    Refused,
    /// A time before 1901 or after 2446.
    TimeOutOfRange,
    /// An attribute of another system.
    ForeignAttribute,
    /// An access control list in text form that is not complete.
    IncompleteAcl,
    /// An entry of a type that nobody has defined.
    UnknownType,
    /// Something follows the tar's end, or a hard link.
    TrailingData,
    /// The tar stops without its end mark.
    NoEndMark,
    /// A directory without an entry of its own.
    MissingParent,
    /// A directory whose entry comes after what lies in it.
    LateParent,
    /// An entry whose name a later one has too.
    Replaced,
    /// A directory with more than one entry.
    RepeatedDirectory,
    /// A hard link that is there already.
    RepeatedHardLink,
    /// A whiteout where everything below is hidden anyhow.
    NeedlessWhiteout,
    /// A whiteout of a name that the tar brings too.
    WhiteoutBesideEntry,
    /// What AUFS kept for itself.
    AufsBookkeeping,
    /// The label of a volume of tapes.
    VolumeLabel,
    /// A path that is absolute, or goes back with `..`.
    RewrittenPath,
}

impl ProblemKind {
    /// How much it matters.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::Damaged
            | Self::EscapingPath
            | Self::LongName
            | Self::BelowNoDirectory
            | Self::LateHardLink
            | Self::OversizedAttribute
            | Self::DeviceNumber
            | Self::NoRoom
            | Self::Refused => Severity::Refused,
            Self::TimeOutOfRange
            | Self::ForeignAttribute
            | Self::IncompleteAcl
            | Self::UnknownType
            | Self::TrailingData
            | Self::NoEndMark => Severity::Changed,
            _ => Severity::Noted,
        }
    }

    pub(crate) fn is_refusal(self) -> bool {
        self.severity() == Severity::Refused
    }

    /// What is done about it.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::Damaged
            | Self::EscapingPath
            | Self::LongName
            | Self::BelowNoDirectory
            | Self::LateHardLink
            | Self::OversizedAttribute
            | Self::DeviceNumber
            | Self::NoRoom
            | Self::Refused => "the tar is refused",
            Self::TimeOutOfRange => "the nearest time that ext4 can hold is taken",
            Self::ForeignAttribute | Self::IncompleteAcl => "it is left out, with a warning",
            Self::UnknownType => "it is taken for a file, with a warning",
            Self::TrailingData => "it is ignored, with a warning",
            Self::NoEndMark => "what is there is taken, with a warning",
            Self::MissingParent => {
                "it is made: mode 0755, root's, with the time of what lies in it"
            }
            Self::LateParent => "it is made early, and gets its metadata when its entry comes",
            Self::Replaced => "the later entry takes its place",
            Self::RepeatedDirectory => "it keeps what is in it, and takes the later metadata",
            Self::RepeatedHardLink => "nothing: it is there already",
            Self::NeedlessWhiteout => "it is kept, and hides nothing",
            Self::WhiteoutBesideEntry => "what the tar brings stays, and what lies below is hidden",
            Self::AufsBookkeeping | Self::VolumeLabel => "it is left out",
            Self::RewrittenPath => "it is taken from the layer's root",
        }
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What an error that ends a conversion is called.
pub(crate) fn kind_of(error: &Error) -> ProblemKind {
    match (error.problem(), error.kind()) {
        (Some(kind), _) => kind,
        (None, ErrorKind::NoSpace) => ProblemKind::NoRoom,
        (None, ErrorKind::Corrupt) => ProblemKind::Damaged,
        (None, _) => ProblemKind::Refused,
    }
}

/// One thing that is the matter with a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Of what kind it is.
    pub kind: ProblemKind,
    /// The entry it concerns, as raw bytes; empty when it concerns the whole tar.
    pub path: Vec<u8>,
    /// The byte of the tar at which that entry starts, where it is known.
    pub offset: Option<u64>,
    /// What is the matter.
    pub what: String,
}

impl fmt::Display for Problem {
    /// Without what is done about it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", Name(&self.path))?;
        }
        f.write_str(&self.what)
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Problem", 6)?;
        fields.serialize_field("severity", &self.kind.severity())?;
        fields.serialize_field("kind", &self.kind)?;
        fields.serialize_field("path", &String::from_utf8_lossy(&self.path))?;
        fields.serialize_field("offset", &self.offset)?;
        fields.serialize_field("what", &self.what)?;
        fields.serialize_field("done", self.kind.done())?;
        fields.end()
    }
}

/// The problems of a tar: the first fifty of each kind in words, the rest as numbers.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    kept: Vec<Problem>,
    counts: BTreeMap<ProblemKind, u64>,
}

impl Problems {
    /// Adds a problem; its place, if it is kept in words.
    pub(crate) fn push(&mut self, mut problem: Problem) -> Option<usize> {
        let count = self.counts.entry(problem.kind).or_default();
        *count += 1;
        (*count <= KEPT).then(|| {
            problem.path.truncate(LONGEST);
            self.kept.push(problem);
            self.kept.len() - 1
        })
    }

    /// Whether one more of this kind would be kept in words.
    pub(crate) fn has_room(&self, kind: ProblemKind) -> bool {
        self.counts.get(&kind).is_none_or(|count| *count < KEPT)
    }

    /// Counts `more` that are not kept in words.
    pub(crate) fn count(&mut self, kind: ProblemKind, more: u64) {
        if more > 0 {
            *self.counts.entry(kind).or_default() += more;
        }
    }

    /// Says that a problem was of another kind than it seemed.
    pub(crate) fn change(&mut self, from: ProblemKind, place: Option<usize>, to: ProblemKind) {
        if let Some(count) = self.counts.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&from);
            }
        }
        self.count(to, 1);
        if let Some(problem) = place.and_then(|place| self.kept.get_mut(place)) {
            problem.kind = to;
        }
    }

    pub(crate) fn word(&mut self, place: usize, what: String) {
        if let Some(problem) = self.kept.get_mut(place) {
            problem.what = what;
        }
    }

    pub(crate) fn sort(&mut self) {
        self.kept.sort_by_key(|problem| problem.kind.severity());
    }

    /// Those kept in words, the gravest first, else in the tar's order.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.kept.iter()
    }

    /// How many of each kind there were in all.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<ProblemKind, u64> {
        &self.counts
    }

    /// How many there were in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}
