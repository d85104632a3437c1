//! What is called free, held against `dumpe2fs`, and filled with garbage for `e2fsck` and the kernel to mind.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use opengcs_ext4::{ErrorKind, Reader};

use crate::journal_kernel::{Mount, dirty};
use crate::read_tools::{
    Scratch, assert_same, e2fsck, noise, plant, run, tree, tree_of_folder, tree_of_image,
};

/// The runs of free blocks of an image.
fn free(image: &Path) -> opengcs_ext4::Result<Vec<Range<u64>>> {
    let reader = Reader::open(File::open(image).unwrap())?;
    let mut runs = Vec::new();
    reader.free_blocks(|run| runs.push(run.start.0..run.end.0))?;
    Ok(runs)
}

/// The same as `dumpe2fs` lists them, group by group.
fn listed(image: &Path) -> Vec<Range<u64>> {
    let text = run("dumpe2fs", &[image.to_str().unwrap()], &[0]);
    let number = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    // Of a run's last cluster, it gives the first block, or from e2fsprogs 1.47.1 on the last one.
    let ratio = number("Cluster size:").map_or(1, |size| size / number("Block size:").unwrap());
    let lists = text
        .lines()
        .filter_map(|line| line.strip_prefix("  Free blocks: "));
    let mut runs: Vec<Range<u64>> = Vec::new();
    for run in lists
        .flat_map(|list| list.split(", "))
        .filter(|run| !run.trim().is_empty())
    {
        let (first, last) = run
            .trim()
            .split_once('-')
            .unwrap_or((run.trim(), run.trim()));
        let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
        let end = (last / ratio + 1) * ratio;
        match runs.last_mut() {
            Some(before) if before.end == first => before.end = end,
            _ => runs.push(first..end),
        }
    }
    runs
}

/// Fills blocks with what no structure is.
fn spoil(image: &Path, runs: &[Range<u64>]) {
    let file = File::options().read(true).write(true).open(image).unwrap();
    let block_size = u64::from(Reader::open(&file).unwrap().summary().block_size);
    for run in runs {
        let length = usize::try_from((run.end - run.start) * block_size).unwrap();
        let bytes = noise(run.start, length.min(1 << 20));
        for chunk in (0..length).step_by(1 << 20) {
            let part = &bytes[..bytes.len().min(length - chunk)];
            file.write_all_at(part, run.start * block_size + chunk as u64)
                .unwrap();
        }
    }
}

#[test]
fn free_blocks_are_those_that_dumpe2fs_lists_and_nobody_misses_them() {
    for (options, size) in [
        ("-t ext4 -b 4096", "300M"),
        ("-t ext4 -b 1024", "70M"),
        ("-t ext4 -b 4096 -O ^has_journal", "300M"),
        ("-t ext4 -b 2048 -O ^metadata_csum,uninit_bg", "120M"),
        ("-t ext4 -b 1024 -O ^flex_bg", "60M"),
        ("-t ext4 -b 1024 -O meta_bg,^resize_inode", "70M"),
        ("-t ext4 -b 1024 -O sparse_super2", "70M"),
        ("-t ext4 -b 1024 -O bigalloc -C 8192", "70M"),
        ("-t ext4 -b 4096 -O bigalloc -C 65536", "300M"),
        ("-t ext3 -b 1024", "40M"),
        ("-t ext2 -b 1024 -O ^sparse_super,^resize_inode", "40M"),
        ("-t ext4 -b 4096 -O quota,orphan_file,mmp", "300M"),
        ("-t ext4 -b 4096 -O inline_data,ea_inode,project", "300M"),
        ("-t ext4 -b 4096 -E lazy_itable_init=0 -G 4", "1300M"),
    ] {
        let scratch = Scratch::new();
        let source = scratch.path("source");
        plant(&source, 200, 3 << 20, 900);
        let image = scratch.make(options, size, Some(&source));
        // What was deleted leaves gaps.
        let names = ["size-300000", "size-12288", "size-4097"];
        let commands: Vec<_> = names.map(|name| format!("rm {name}")).into();
        scratch.debugfs(&image, &commands);
        e2fsck(&image);
        let runs = free(&image).unwrap_or_else(|error| panic!("{options}: {error}"));
        assert_eq!(runs, listed(&image), "{options}");
        assert!(!runs.is_empty());
        let reader = Reader::open(File::open(&image).unwrap()).unwrap();
        let by_group: u64 = reader.groups().map(|group| group.unwrap().free).sum();
        assert_eq!(by_group, reader.summary().free_blocks, "{options}");
        let before = tree_of_image(&image);
        spoil(&image, &runs);
        run("e2fsck", &["-fn", image.to_str().unwrap()], &[0]);
        assert_same(options, &before, &tree_of_image(&image));
        assert_eq!(free(&image).unwrap(), runs);
    }
}

#[test]
fn what_cannot_be_trusted_is_not_called_free() {
    let scratch = Scratch::new();
    let image = scratch.make("-t ext4 -b 4096 -O ^has_journal", "40M", None);
    let whole = fs::read(&image).unwrap();
    let refused = |commands: &[&str], kind: ErrorKind, words: &str| {
        fs::write(&image, &whole).unwrap();
        let commands: Vec<_> = commands.iter().map(|&command| command.to_owned()).collect();
        scratch.debugfs(&image, &commands);
        let error = free(&image).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(&["ssv state 0"], ErrorKind::Corrupt, "not unmounted");
    refused(&["ssv state 3"], ErrorKind::Corrupt, "errors");
    refused(
        &["set_bg 0 free_blocks_count 17", "set_bg 0 checksum calc"],
        ErrorKind::Corrupt,
        "17",
    );
    refused(
        &["feature shared_blocks"],
        ErrorKind::Unsupported,
        "shared_blocks",
    );
    // A bit of a bitmap.
    fs::write(&image, &whole).unwrap();
    let text = run("dumpe2fs", &[image.to_str().unwrap()], &[0]);
    let at = text.split("Block bitmap at ").nth(1).unwrap();
    let at: usize = at.split([' ', ',']).next().unwrap().parse().unwrap();
    let mut bytes = whole.clone();
    bytes[at * 4096 + 700] ^= 4;
    fs::write(&image, bytes).unwrap();
    let error = free(&image).unwrap_err();
    assert!(error.to_string().contains("bad checksum"), "{error}");
}

#[test]
#[ignore = "needs root and loop devices"]
fn after_power_cuts_nothing_that_recovery_needs_is_called_free() {
    let (mut told, mut refused) = (0, 0);
    for (seed, (options, mount_options)) in (40..).zip([
        ("-t ext4 -b 4096", "rw"),
        ("-t ext4 -b 1024 -J size=1", "rw"),
        ("-t ext4 -b 1024 -J size=1", "data=journal"),
        ("-t ext4 -b 4096 -J size=4", "discard"),
        (
            "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg -J size=1",
            "rw",
        ),
        ("-t ext4 -b 1024 -O orphan_file -J size=1", "rw"),
        ("-t ext4 -b 1024 -O bigalloc -C 8192 -J size=8", "rw"),
        ("-t ext3 -b 1024 -J size=1", "rw"),
        ("-t ext4 -b 4096 -O fast_commit -J size=24", "rw"),
    ]) {
        for flush in [false, true] {
            let what = format!("{options} / {mount_options} / {flush}");
            let scratch = Scratch::new();
            let size = if options.contains("fast_commit") {
                "256M"
            } else {
                "48M"
            };
            let image = dirty(&scratch, options, mount_options, seed, flush, size);
            let runs = match free(&image) {
                Ok(runs) => runs,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error}");
                    refused += 1;
                    continue;
                }
            };
            told += 1;
            let expected = tree(&Reader::open(File::open(&image).unwrap()).unwrap()).unwrap();
            spoil(&image, &runs);
            let checked = scratch.path("checked");
            fs::copy(&image, &checked).unwrap();
            e2fsck(&checked);
            assert_same(&what, &expected, &tree_of_image(&checked));
            let mount = Mount::new(&image, scratch.path("again"), "rw");
            let by_kernel = tree_of_folder(&mount.0);
            drop(mount);
            assert_same(&format!("{what} (kernel)"), &expected, &by_kernel);
            run("e2fsck", &["-fn", image.to_str().unwrap()], &[0]);
        }
    }
    eprintln!("{told} told, {refused} refused");
    assert!(told >= 14, "{told} told, {refused} refused");
}
