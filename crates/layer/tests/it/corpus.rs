//! Odd tars, each with the tree or the error it must give.

use opengcs_layer::{ErrorKind, FilesystemOptions, TarToExt4Options, TarWhiteouts, tar_to_ext4};

use crate::forge::{Header, Tar, base256, gnu_sparse_tail, octal, pax_records};
use crate::{judge, listing, plan};

mod basics;
mod damaged;
mod extensions;
mod hard_links;
mod numbers;
mod replacing;
mod sparse;
mod whiteouts;

pub enum Expect {
    /// The lines of the listing.
    Tree(&'static [&'static str]),
    /// An error of this kind, whose line has all of these in it.
    Error(ErrorKind, &'static [&'static str]),
}

use Expect::{Error, Tree};

const CORRUPT: ErrorKind = ErrorKind::Corrupt;
const UNSUPPORTED: ErrorKind = ErrorKind::Unsupported;

pub type Case = (&'static str, Vec<u8>, Expect);

fn leak(lines: Vec<String>) -> &'static [&'static str] {
    let lines: Vec<&'static str> = lines
        .into_iter()
        .map(|line| &*Box::leak(line.into_boxed_str()))
        .collect();
    Box::leak(lines.into_boxed_slice())
}

pub fn options() -> TarToExt4Options {
    TarToExt4Options {
        filesystem: FilesystemOptions {
            lost_found: false,
            ..FilesystemOptions::default()
        },
        ..TarToExt4Options::default()
    }
}

/// Gives its bytes in pieces of odd sizes.
struct Pieces<'a>(&'a [u8], usize);

impl std::io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 * 5 % 1021 + 1;
        let end = buffer.len().min(self.1);
        self.0.read(&mut buffer[..end])
    }
}

fn matches(got: &str, want: &str) -> bool {
    got == want || want.ends_with('#') && got.starts_with(want)
}

/// What is wrong with a case, if anything.
fn judge(case: &Case, options: &TarToExt4Options) -> Option<String> {
    let (_, tar, expect) = case;
    let mut image = Vec::new();
    let result = tar_to_ext4(&tar[..], &mut image, options);
    let mut again = Vec::new();
    let second = tar_to_ext4(Pieces(tar, 7), &mut again, options);
    if result.is_ok() != second.is_ok() || (result.is_ok() && image != again) {
        return Some("differs when the tar comes in pieces".into());
    }
    if let Some(what) = plan::disagreement(tar, &result, options) {
        return Some(what);
    }
    match (result, expect) {
        (Ok(converted), Tree(lines)) => {
            if converted.size != image.len() as u64 {
                return Some(format!("{} of {} bytes", image.len(), converted.size));
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &image).unwrap();
            judge::fsck(file.path());
            let got = listing::list(image);
            let same = got.len() == lines.len()
                && got.iter().zip(*lines).all(|(got, want)| matches(got, want));
            (!same).then(|| format!("gave {got:#?}"))
        }
        (Err(error), Error(kind, parts)) => {
            let line = error.to_string();
            let said = error.kind() == *kind && parts.iter().all(|part| line.contains(part));
            let one_line = !line.contains('\n');
            (!said || !one_line).then(|| format!("said {:?}: {line}", error.kind()))
        }
        (Ok(_), Error(..)) => Some("was taken".into()),
        (Err(error), Tree(_)) => Some(format!("was refused: {error} ({error:?})")),
    }
}

pub fn check(cases: &[Case], options: &TarToExt4Options) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| judge(case, options).map(|what| format!("{}: {what}", case.0)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All cases that are read with the usual options.
pub fn all() -> Vec<Case> {
    [
        basics::basics(),
        replacing::replacing(),
        hard_links::hard_links(),
        whiteouts::whiteouts(),
        numbers::numbers(),
        extensions::extensions(),
        damaged::damaged(),
        sparse::sparse(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The promise is a hundred odd tars; each has a name of its own, and says what must come of it.
#[test]
fn there_are_more_than_a_hundred_cases_each_with_its_expectation() {
    let cases = all();
    let names: std::collections::HashSet<_> = cases.iter().map(|case| case.0).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    assert!(cases.len() >= 100, "only {} cases", cases.len());
    let says_nothing = |case: &&Case| matches!(case.2, Error(_, parts) if parts.is_empty());
    let silent: Vec<_> = cases
        .iter()
        .filter(says_nothing)
        .map(|case| case.0)
        .collect();
    assert!(silent.is_empty(), "errors without words: {silent:?}");
}

#[test]
fn ordinary_tars_give_their_trees() {
    check(&basics::basics(), &options());
}

#[test]
fn later_entries_replace_earlier_ones() {
    check(&replacing::replacing(), &options());
}

#[test]
fn hard_links_join_or_are_refused() {
    check(&hard_links::hard_links(), &options());
}

#[test]
fn what_is_taken_for_a_links_content_is_told() {
    let told = |after: Tar| {
        let tar = after.file("c", "2").end();
        let converted = tar_to_ext4(&tar[..], Vec::new(), &options()).unwrap();
        converted
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let link = || {
        let header = Header::new("b", b'1', 600).link("a");
        Tar::new().file("a", vec![b'1'; 600]).header(&header)
    };
    assert!(told(link()).is_empty());
    let lines = told(link().data(vec![b'1'; 600]));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("follows a hard link"), "{lines:?}");
}

/// Apart from the others, for it is large.
#[test]
fn more_hard_links_than_ext4_counts_are_refused() {
    let link = |tar: Tar, number: u32| tar.hardlink(format!("{number}"), "a");
    let tar = (0..65_000).fold(Tar::new().file("a", "1"), link);
    let error = tar_to_ext4(&tar.end()[..], Vec::new(), &options()).unwrap_err();
    assert_eq!(error.kind(), UNSUPPORTED);
    let line = error.to_string();
    assert!(
        line.contains("\"64999\"") && line.contains("65000 hard links"),
        "{line}"
    );
}

#[test]
fn whiteouts_become_overlayfs_ones() {
    check(&whiteouts::whiteouts(), &options());
}

#[test]
fn numbers_of_all_forms_are_read() {
    check(&numbers::numbers(), &options());
}

#[test]
fn extension_headers_count() {
    check(&extensions::extensions(), &options());
}

#[test]
fn damage_is_told() {
    check(&damaged::damaged(), &options());
}

#[test]
fn sparse_files_of_all_versions_are_read() {
    check(&sparse::sparse(), &options());
}

#[test]
fn whiteouts_are_files_when_kept() {
    let keep = TarToExt4Options {
        whiteouts: TarWhiteouts::Keep,
        ..options()
    };
    let cases = [
        (
            "markers",
            Tar::new()
                .file("d/.wh..wh..opq", "")
                .file(".wh.a", "x")
                .file(".wh..wh.aufs", "")
                .file(".wh.b/c", "1")
                .end(),
            Tree(&[
                ".wh..wh.aufs",
                ".wh.a =x",
                ".wh.b/",
                ".wh.b/c =1",
                "d/",
                "d/.wh..wh..opq",
            ]),
        ),
        (
            "name that would fit without its prefix",
            {
                let name = format!(".wh.{}", "n".repeat(255));
                Tar::new()
                    .pax(b'x', &[("path", name.as_bytes())])
                    .file("x", "")
                    .end()
            },
            Error(UNSUPPORTED, &[".wh.nnn"]),
        ),
    ];
    check(&cases, &keep);
}

#[test]
fn backslashes_separate_when_asked() {
    let windows = TarToExt4Options {
        backslash_paths: true,
        ..options()
    };
    let tar = || Tar::new().file("a\\b", "1").hardlink("c\\d", "a\\b").end();
    check(
        &[(
            "separate",
            tar(),
            Tree(&["a/", "a/b n2 =1", "c/", "c/d ==a/b"]),
        )],
        &windows,
    );
    let odd: [Case; 4] = [
        (
            "climb above the root",
            Tar::new().file("a\\..\\..\\b", "1").end(),
            Error(CORRUPT, &["above the root"]),
        ),
        (
            "link to what lies above the root",
            Tar::new().hardlink("a", "..\\b").end(),
            Error(CORRUPT, &["above the root"]),
        ),
        (
            "separate whiteouts",
            Tar::new().file("d\\.wh.x", "").end(),
            Tree(&["d/", "d/x c0:0 m0"]),
        ),
        (
            "make directories at the end, and stay in targets",
            Tar::new().dir("d\\e\\").symlink("l", "d\\e").end(),
            Tree(&["d/", "d/e/", "l ->d\\\\e"]),
        ),
    ];
    check(&odd, &windows);
    check(
        &[(
            "are letters otherwise",
            tar(),
            Tree(&["a\\\\b n2 =1", "c\\\\d ==a\\\\b"]),
        )],
        &options(),
    );
}

#[test]
fn small_blocks_and_inline_data_give_the_same_trees() {
    for (block_size, inline_data) in [(1024, false), (2048, false), (4096, true), (1024, true)] {
        let mut other = options();
        other.filesystem.block_size = block_size;
        other.filesystem.inline_data = inline_data;
        let cases: Vec<Case> = [
            basics::basics(),
            replacing::replacing(),
            hard_links::hard_links(),
            whiteouts::whiteouts(),
            sparse::sparse(),
        ]
        .into_iter()
        .flatten()
        // What does not fit into the smaller blocks has its own limits.
        .filter(|case| block_size == 4096 || !case.0.contains("symbolic link"))
        .collect();
        check(&cases, &other);
    }
}

#[test]
fn warnings_name_what_was_left_out() {
    let tar = Tar::new()
        .pax(b'x', &[("SCHILY.acl.access", b"user::rw-")])
        .file("a", "1")
        .raw([0; 1024])
        .raw("more")
        .0;
    let converted = tar_to_ext4(&tar[..], Vec::new(), &options()).unwrap();
    let lines: Vec<String> = converted.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(converted.warnings.total(), 2);
    assert!(lines[0].contains("end of the tar") || lines[1].contains("end of the tar"));
    assert!(
        lines
            .iter()
            .any(|line| line.contains("\"a\"") && line.contains("access control"))
    );
}

#[test]
fn times_that_ext4_cannot_hold_become_the_nearest_and_are_told() {
    let tar = Tar::new()
        .header(&Header {
            mtime: base256(1 << 40, 12),
            ..Header::new("late", b'0', 0)
        })
        .header(&Header {
            mtime: base256(-(1 << 40), 12),
            ..Header::new("early", b'0', 0)
        })
        .pax(b'x', &[("mtime", b"0"), ("atime", b"15032385536")])
        .file("read-late", "")
        .pax(b'x', &[("mtime", b"15032385535.999999999")])
        .file("last", "")
        .header(&Header {
            mtime: base256(-0x8000_0000, 12),
            ..Header::new("first", b'0', 0)
        })
        .end();
    let mut image = Vec::new();
    let converted = tar_to_ext4(&tar[..], &mut image, &options()).unwrap();
    let told: Vec<String> = converted.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:#?}");
    for name in ["\"late\"", "\"early\"", "\"read-late\""] {
        assert!(told.iter().any(|line| line.contains(name)), "{told:#?}");
    }
    assert_eq!(
        listing::list(image),
        [
            "early t-2147483648",
            "first t-2147483648",
            "last t15032385535+999999999",
            "late t15032385535+999999999",
            "read-late",
        ]
    );
}
