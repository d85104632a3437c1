//! Plans: that they say what the conversion does, and everything that is the matter with a tar.

use std::collections::BTreeMap;

use opengcs_layer::{
    Converted, ErrorKind, Format, Plan, ProblemKind, Result, Severity, TarToDiskOptions,
    TarToExt4Options, plan_tar, tar_to_disk,
};

use crate::corpus;
use crate::forge::{Header, Tar, base256};

fn plan(tar: &[u8], options: &TarToDiskOptions) -> Plan {
    plan_tar(tar, options).unwrap()
}

/// What a plan says differently from a conversion, if anything.
pub fn disagreement(
    tar: &[u8],
    converted: &Result<Converted>,
    options: &TarToExt4Options,
) -> Option<String> {
    let options = TarToDiskOptions {
        ext4: options.clone(),
        format: Format::Raw,
        ..TarToDiskOptions::default()
    };
    differs(&plan(tar, &options), converted)
}

fn differs(plan: &Plan, converted: &Result<Converted>) -> Option<String> {
    match (&plan.image, &plan.refusal, converted) {
        (Some(image), None, Ok(converted)) => {
            let planned = (image.size, image.virtual_size, image.inodes);
            let made = (converted.size, converted.virtual_size, converted.inodes);
            let same = planned == made
                && plan.entries == converted.entries
                && plan.tar_bytes == converted.tar_bytes
                && plan.compression == Some(converted.compression)
                && plan.warnings == converted.warnings
                && plan.is_whole;
            let graver =
                |problem: &&opengcs_layer::Problem| problem.kind.severity() == Severity::Refused;
            let refused = plan.problems.iter().find(graver);
            (!same || refused.is_some())
                .then(|| format!("planned {planned:?}, made {made:?}, problem {refused:?}"))
        }
        (None, Some(refusal), Err(error)) => {
            let line = |error: &opengcs_layer::Error| {
                let line = error.to_string();
                // The plan knows no file.
                match error.path() {
                    Some(path) => line.replace(&format!("{}: ", path.display()), ""),
                    None => line,
                }
            };
            let told = plan.problems.iter().any(|problem| {
                problem.kind.severity() == Severity::Refused
                    && refusal.offset() == problem.offset
                    && refusal
                        .entry()
                        .unwrap_or_default()
                        .starts_with(&problem.path)
            });
            (refusal.kind() != error.kind() || line(refusal) != line(error) || !told).then(|| {
                format!("the plan refuses {refusal}, told: {told}; the conversion says {error}")
            })
        }
        (image, refusal, made) => Some(format!(
            "the plan says {image:?} {refusal:?}; the conversion {:?}",
            made.as_ref().map(|made| made.size)
        )),
    }
}

#[test]
fn plan_of_each_odd_tar_is_what_the_conversion_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let shapes: [(Format, bool, Option<u64>); 4] = [
        (Format::FixedVhd, true, None),
        (Format::Vhdx, false, None),
        (Format::Vhdx, true, Some(8 << 20)),
        (Format::Raw, false, Some(300 << 10)),
    ];
    let mut wrong = Vec::new();
    for (format, verity, size) in shapes {
        let mut options = TarToDiskOptions {
            ext4: corpus::options(),
            format,
            verity,
            sync: false,
            ..TarToDiskOptions::default()
        };
        options.ext4.filesystem.size = size;
        options.ext4.filesystem.journal = None;
        for (name, tar, _) in corpus::all() {
            let made = tar_to_disk(&tar[..], &path, &options);
            if let Some(what) = differs(&plan(&tar, &options), &made) {
                wrong.push(format!("{name}, {format}: {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Attributes beyond what the writer keeps in memory are read again where directories change.
#[test]
fn attributes_that_are_read_again_count_as_in_the_conversion() {
    let mut tar = Tar::new();
    for number in 0..6u8 {
        let value = vec![number + 1; 60_000];
        tar = tar
            .pax(b'x', &[("SCHILY.xattr.user.large", &value)])
            .dir(format!("d{number}/"));
    }
    for number in 0..6 {
        tar = tar.file(format!("d{number}/.wh..wh..opq"), "");
    }
    let tar = tar.end();
    let options = TarToDiskOptions {
        ext4: corpus::options(),
        format: Format::Raw,
        sync: false,
        ..TarToDiskOptions::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let made = tar_to_disk(&tar[..], &folder.path().join("disk"), &options);
    let plan = plan(&tar, &options);
    assert_eq!(differs(&plan, &made), None);
    let image = plan.image.unwrap();
    assert_eq!((image.attribute_blocks, image.attribute_inodes), (6, 6));
    assert_eq!(plan.entries_with_attributes, 6);
    assert_eq!(plan.attribute_bytes, 6 * (60_000 + 10));
}

#[test]
fn every_problem_is_told_and_what_is_done_about_it() {
    let tar = Tar::new()
        .dir("./")
        .dir("./")
        .raw(Header::new("label", b'V', 0).bytes())
        .file("missing/a", "1")
        .file("late/a", "1")
        .dir("late/")
        .dir("late/")
        .file("/absolute", "")
        .file("late/../back", "")
        .file("absolute", "again, and the largest")
        .hardlink("hard", "late/a")
        .hardlink("hard", "late/a")
        .file("late/.wh.a", "")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/below/.wh.x", "")
        .file(".wh..wh.aufs", "")
        .header(&Header {
            mtime: base256(1 << 40, 12),
            ..Header::new("time", b'0', 0)
        })
        .pax(b'x', &[("SCHILY.xattr.com.apple.x", b"1")])
        .file("mac", "")
        .pax(b'x', &[("SCHILY.acl.access", b"user::rw-")])
        .file("acl", "")
        .raw([0; 1024])
        .raw("behind")
        .0;
    let plan = plan(&tar, &TarToDiskOptions::default());
    assert!(plan.image.is_some() && plan.refusal.is_none() && plan.is_whole);
    assert_eq!(plan.largest_file, Some((b"absolute".to_vec(), 22)));
    let expected = BTreeMap::from([
        (ProblemKind::TimeOutOfRange, 1),
        (ProblemKind::ForeignAttribute, 1),
        (ProblemKind::IncompleteAcl, 1),
        (ProblemKind::TrailingData, 1),
        // `missing`, `opaque` and `opaque/below`.
        (ProblemKind::MissingParent, 3),
        (ProblemKind::LateParent, 1),
        (ProblemKind::Replaced, 1),
        // The root and `late`.
        (ProblemKind::RepeatedDirectory, 2),
        (ProblemKind::RepeatedHardLink, 1),
        (ProblemKind::NeedlessWhiteout, 1),
        (ProblemKind::WhiteoutBesideEntry, 1),
        (ProblemKind::AufsBookkeeping, 1),
        (ProblemKind::VolumeLabel, 1),
        (ProblemKind::RewrittenPath, 2),
    ]);
    assert_eq!(*plan.problems.counts(), expected);
    assert_eq!(plan.problems.total(), 18);
    let of = |kind: ProblemKind| {
        let mut found = plan
            .problems
            .iter()
            .filter(move |problem| problem.kind == kind);
        found.next().unwrap()
    };
    let whiteout = of(ProblemKind::NeedlessWhiteout);
    assert_eq!(whiteout.path, b"opaque/below/x");
    assert_eq!(of(ProblemKind::LateParent).path, b"late");
    let json = serde_json::to_value(of(ProblemKind::Replaced)).unwrap();
    assert_eq!(json["kind"], "replaced");
    assert_eq!(json["severity"], "noted");
    assert_eq!(json["path"], "absolute");
    assert_eq!(json["done"], "the later entry takes its place");
    assert!(json["offset"].as_u64().unwrap() > 0);
}

#[test]
fn a_plan_goes_on_behind_what_is_refused() {
    let tar = Tar::new()
        .hardlink("early", "target")
        .hardlink("never", "nowhere")
        .file("target", "")
        .file("../escaping", "")
        .file("target/below", "")
        .file([b'n'; 90], "")
        .pax(b'x', &[("path", &[b'n'; 256])])
        .file("x", "")
        .device("device", b'3', 5000, 0)
        .pax(b'x', &[("SCHILY.xattr.user.large", &vec![b'x'; 70_000])])
        .file("attribute", "")
        .symlink("empty", "")
        .end();
    let plan = plan(&tar, &TarToDiskOptions::default());
    let refusal = plan.refusal.as_ref().unwrap();
    assert!(plan.image.is_none() && plan.is_whole);
    assert_eq!(refusal.entry(), Some(&b"early"[..]));
    let expected = BTreeMap::from([
        (ProblemKind::EscapingPath, 1),
        (ProblemKind::LongName, 1),
        (ProblemKind::BelowNoDirectory, 1),
        (ProblemKind::LateHardLink, 2),
        (ProblemKind::OversizedAttribute, 1),
        (ProblemKind::DeviceNumber, 1),
        (ProblemKind::Refused, 1),
    ]);
    assert_eq!(*plan.problems.counts(), expected);
    let lines: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines[0],
        "\"early\": it is a hard link to \"target\", which comes later in the tar"
    );
    assert_eq!(
        lines[1],
        "\"never\": it is a hard link to \"nowhere\", which is not in the tar"
    );
    let largest = plan.problems.iter().map(|problem| problem.kind.done());
    assert!(largest.into_iter().all(|done| done == "the tar is refused"));
}

#[test]
fn many_problems_are_counted_and_some_of_each_kind_told() {
    let mut tar = Tar::new();
    for number in 0..300 {
        tar = tar.file(format!("d{number}/f"), "");
    }
    let plan = plan(&tar.file("d0/f", "").end(), &TarToDiskOptions::default());
    assert_eq!(plan.problems.counts()[&ProblemKind::MissingParent], 300);
    assert_eq!(plan.problems.counts()[&ProblemKind::Replaced], 1);
    assert_eq!(plan.problems.iter().count(), 51);
}

#[test]
fn damage_ends_a_plan_and_options_and_inputs_fail_it() {
    let whole = Tar::new().file("a", "1").file("b", [7; 2000]).end();
    let plan = plan(&whole[..1800], &TarToDiskOptions::default());
    assert!(!plan.is_whole && plan.image.is_none());
    assert_eq!(plan.problems.counts()[&ProblemKind::Damaged], 1);

    let mut options = TarToDiskOptions::default();
    options.ext4.filesystem.block_size = 3;
    let error = plan_tar(&whole[..], &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    struct Fails;
    impl std::io::Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
    let error = plan_tar(Fails, &TarToDiskOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}
