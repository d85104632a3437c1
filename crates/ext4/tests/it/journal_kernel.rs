//! Journals that the running kernel left behind, replayed and held against `e2fsck` and the kernel.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use opengcs_ext4::{JournalState, Reader};

use crate::read_tools::{
    Scratch, Tree, assert_same, e2fsck, noise, run, tree, tree_of_folder, tree_of_image,
};

/// A mounted image, unmounted when dropped.
pub(crate) struct Mount(pub(crate) PathBuf);

impl Mount {
    pub(crate) fn new(image: &Path, at: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        let options = format!("loop,{options}");
        let paths = (image.to_str().unwrap(), at.to_str().unwrap());
        run(
            "mount",
            &["-t", "ext4", "-o", &options, paths.0, paths.1],
            &[0],
        );
        Self(at)
    }

    /// Ends the file system as a power cut would. With `flush` the journal's last transaction is
    /// committed before.
    fn shut_down(&self, flush: bool) {
        let script = "import fcntl,os,struct,sys\n\
            fd=os.open(sys.argv[1],os.O_RDONLY)\n\
            fcntl.ioctl(fd,0x8004587d,struct.pack('I',int(sys.argv[2])))";
        let flag = if flush { "1" } else { "2" };
        run(
            "python3",
            &["-c", script, self.0.to_str().unwrap(), flag],
            &[0],
        );
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A program that another test is just starting may hold copies of what was open here.
        for _ in 0..50 {
            if run("umount", &[self.0.to_str().unwrap()], &[0, 32]).is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        run("umount", &[self.0.to_str().unwrap()], &[0]);
    }
}

/// Creates, overwrites, cuts, renames and deletes; `sync` after some steps.
pub(crate) fn work(root: &Path, seed: u64, steps: u64) {
    work_with(root, seed, steps, false);
}

fn work_with(root: &Path, seed: u64, steps: u64, is_small: bool) {
    for step in 0..steps {
        let dice = noise(seed * 1000 + step, 16);
        let pick = |limit: u8, at: usize| dice[at] % limit;
        let directory = root.join(format!("d{}", pick(7, 0)));
        let path = directory.join(format!("f{}", pick(40, 1)));
        let _ = fs::create_dir(&directory);
        match pick(12, 2) {
            0..=4 => {
                let size = usize::from(dice[3]) * usize::from(dice[4]);
                // The journal's magic number, which it must escape.
                let mut bytes = 0xC03B_3998_u32.to_be_bytes().to_vec();
                bytes.extend(noise(step, size));
                let _ = fs::write(&path, bytes);
            }
            5 => {
                if let Ok(mut file) = File::options().write(true).open(&path) {
                    let at = u64::from(dice[5]) * 500;
                    file.seek(SeekFrom::Start(at)).unwrap();
                    file.write_all(&noise(step, 3000)).unwrap();
                }
            }
            6 => {
                if let Ok(file) = File::options().write(true).open(&path) {
                    file.set_len(u64::from(dice[5]) * 300).unwrap();
                }
            }
            7 => drop(fs::rename(
                &path,
                directory.join(format!("f{}", pick(40, 6))),
            )),
            8 => drop(fs::remove_file(&path)),
            9 if !is_small => drop(fs::remove_dir_all(&directory)),
            10 if !is_small => {
                let many = directory.join(format!("many{}", pick(3, 7)));
                let _ = fs::create_dir(&many);
                for number in 0..150 {
                    let name = format!("{number}-{}", "x".repeat(usize::from(pick(100, 8))));
                    drop(File::create(many.join(name)));
                }
            }
            _ => {
                if let Ok(file) = File::open(&path) {
                    file.sync_all().unwrap();
                }
            }
        }
    }
}

/// Dirties an image of `options`, mounted with `mount_options`; gives back the dirty image.
pub(crate) fn dirty(
    scratch: &Scratch,
    options: &str,
    mount_options: &str,
    seed: u64,
    flush: bool,
    size: &str,
) -> PathBuf {
    let image = scratch.make(options, size, None);
    let mount = Mount::new(&image, scratch.path("mount"), mount_options);
    work(&mount.0, seed, 400);
    if seed.is_multiple_of(2) {
        // Everything home, so that what follows is the journal's first transaction.
        run("sync", &["-f", mount.0.to_str().unwrap()], &[0]);
        work(&mount.0, seed + 100, 60);
    }
    mount.shut_down(flush);
    image
}

fn check(options: &str, mount_options: &str, seed: u64, flush: bool) -> (u32, u64) {
    let what = format!("{options} / {mount_options} / {seed} / {flush}");
    let scratch = Scratch::new();
    let image = dirty(&scratch, options, mount_options, seed, flush, "48M");
    let before = fs::read(&image).unwrap();
    let reader = Reader::open(File::open(&image).unwrap()).unwrap();
    let found = tree(&reader).unwrap();
    let state = reader.summary().journal;
    drop(reader);
    assert!(fs::read(&image).unwrap() == before, "{what}: written to");

    let checked = scratch.path("checked");
    fs::copy(&image, &checked).unwrap();
    e2fsck(&checked);
    assert_same(&what, &found, &tree_of_image(&checked));

    let mount = Mount::new(&image, scratch.path("again"), "rw");
    let by_kernel: Tree = tree_of_folder(&mount.0);
    drop(mount);
    assert_same(&format!("{what} (kernel)"), &found, &by_kernel);
    let JournalState::Replayed {
        transactions,
        blocks,
        ..
    } = state
    else {
        return (0, 0);
    };
    (transactions, blocks)
}

#[test]
#[ignore = "needs root and loop devices"]
fn power_cuts_read_as_the_kernel_recovers_them() {
    let mut most = (0, 0);
    for (seed, (options, mount_options)) in (0..).zip([
        ("-t ext4 -b 4096", "rw"),
        ("-t ext4 -b 1024 -J size=1", "rw"),
        ("-t ext4 -b 1024 -J size=1", "data=journal"),
        ("-t ext4 -b 4096 -J size=4", "data=journal"),
        (
            "-t ext4 -b 1024 -O ^metadata_csum -J size=1",
            "journal_checksum",
        ),
        (
            "-t ext4 -b 1024 -O ^metadata_csum -J size=1",
            "journal_async_commit,data=writeback",
        ),
        (
            "-t ext4 -b 2048 -J size=2",
            "journal_async_commit,data=writeback",
        ),
        ("-t ext4 -b 1024 -O ^64bit -J size=1", "rw"),
        (
            "-t ext4 -b 1024 -O ^64bit,^metadata_csum -J size=1",
            "data=journal",
        ),
        ("-t ext3 -b 1024 -J size=1", "rw"),
        ("-t ext3 -b 4096 -J size=4", "data=journal"),
        ("-t ext4 -b 1024 -O inline_data -J size=1", "rw"),
        ("-t ext4 -b 1024 -O bigalloc -C 8192 -J size=8", "rw"),
    ]) {
        for flush in [false, true] {
            let (transactions, blocks) = check(options, mount_options, seed, flush);
            eprintln!("{options} / {mount_options}: {transactions} transactions, {blocks} blocks");
            most = (most.0.max(transactions), most.1.max(blocks));
        }
    }
    assert!(
        most.0 > 5 && most.1 > 100,
        "the work dirtied too little: {most:?}"
    );
}

/// Small changes, most of them committed fast: a file is synced after each few.
fn work_fast(root: &Path, seed: u64, rounds: u64) {
    for round in 0..rounds {
        // Linux 6.18 does not replay a folder that takes the inode of one deleted in the same
        // transaction, nor one that has become a hash tree in the transaction that made it.
        work_with(root, seed * 100 + round, 3, true);
        let path = root.join(format!("synced-{}", round % 5));
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        file.write_all(&noise(round, 700)).unwrap();
        if round % 7 == 3 {
            file.set_len(300).unwrap();
        }
        if round % 5 == 2 {
            run("fallocate", &["-l", "70000", path.to_str().unwrap()], &[0]);
        }
        if round % 6 == 1 {
            fs::hard_link(&path, root.join(format!("linked-{round}"))).unwrap();
        }
        if round % 9 == 4 {
            fs::create_dir(root.join(format!("made-{round}"))).unwrap();
            fs::write(root.join(format!("made-{round}/inside")), b"inside").unwrap();
        }
        file.sync_all().unwrap();
    }
}

/// The kernel's replay says the present for times of directories that it touches, and does not
/// count subdirectories; nor does e2fsck 1.47.0 replay a transaction and fast commits behind it.
fn without_what_replay_makes_up(mut tree: Tree) -> Tree {
    for node in tree.values_mut() {
        if node.file_type == opengcs_ext4::FileType::Directory {
            (node.mtime, node.links) = (0, 0);
        }
    }
    tree
}

/// Fast commits found in a dirty image that reads as the kernel recovers it.
fn check_fast(options: &str, mount_options: &str, seed: u64) -> u32 {
    let what = format!("{options} / {mount_options} / {seed}");
    let scratch = Scratch::new();
    // Linux 6.18 does not mount a file system whose area of fast commits is full to the last block.
    let image = scratch.make(&format!("{options} -J size=24"), "256M", None);
    let mount = Mount::new(&image, scratch.path("mount"), mount_options);
    work(&mount.0, seed, 100);
    run("sync", &["-f", mount.0.to_str().unwrap()], &[0]);
    work_fast(&mount.0, seed, 10 + 7 * (seed % 5));
    mount.shut_down(false);
    drop(mount);
    let reader = Reader::open(File::open(&image).unwrap()).unwrap();
    let found = tree(&reader).unwrap();
    let JournalState::Replayed { fast_commits, .. } = reader.summary().journal else {
        panic!("{what}: the journal was clean");
    };
    drop(reader);
    let mount = Mount::new(&image, scratch.path("again"), "rw");
    let by_kernel = tree_of_folder(&mount.0);
    drop(mount);
    assert_same(
        &what,
        &without_what_replay_makes_up(found),
        &without_what_replay_makes_up(by_kernel),
    );
    fast_commits
}

#[test]
#[ignore = "needs root and loop devices"]
fn fast_commits_read_as_the_kernel_replays_them() {
    let mut total = 0;
    for seed in 0..5 {
        for options in [
            "-t ext4 -b 4096 -O fast_commit",
            "-t ext4 -b 1024 -O fast_commit",
            "-t ext4 -b 4096 -O fast_commit,inline_data",
            "-t ext4 -b 4096 -O fast_commit,^metadata_csum,^64bit",
        ] {
            let fast_commits = check_fast(options, "rw", seed);
            eprintln!("{options} / {seed}: {fast_commits} fast commits");
            total += fast_commits;
        }
    }
    assert!(total > 20, "only {total} fast commits");
}
