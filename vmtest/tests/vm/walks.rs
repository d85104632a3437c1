//! Random trees, walked by the guest's kernel and by tools that are not ours: GNU tar and find.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use opengcs::UtilityVm;
use opengcs::layer::{Format, TarToDiskOptions, tar_to_disk};
use tempfile::TempDir;
use vmtest::random::{Shape, write_tree};
use vmtest::tree::Tree;
use vmtest::{debian, odd};

use crate::fixture::shared;

pub(crate) fn trials() -> Vec<Trial> {
    vec![shared(
        "walks::random_trees_are_in_the_kernel_as_in_the_tar",
        random_trees,
    )]
}

/// Where the tools are mounted, and in them the disk that is judged.
const TOOLS: &str = "/mnt/tools";
const JUDGED: &str = "/mnt/tools/judged";

async fn random_trees(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let tools = folder.path().join("tools.vhd");
    write_tools(&tools)?;
    vm.hot_add_vhd(&tools, TOOLS, true, true).await?;
    for (seed, format, block_size, inline_data, journal) in [
        (1, Format::FixedVhd, 4096, false, None),
        (2, Format::Vhdx, 1024, false, None),
        (3, Format::Raw, 4096, true, Some(8 << 20)),
    ] {
        let shape = Shape {
            seed,
            nodes: 1200,
            large_folder: 4000,
            longest_link: (block_size as usize - 1).min(4000),
        };
        let mut tar = Vec::new();
        write_tree(shape, &mut tar)?;
        odd::write_odd_entries(&mut tar)?;
        let mut options = TarToDiskOptions {
            format,
            ..TarToDiskOptions::default()
        };
        options.ext4.filesystem.block_size = block_size;
        options.ext4.filesystem.inline_data = inline_data;
        options.ext4.filesystem.journal = journal;
        options.ext4.filesystem.lost_found = false;
        let disk = folder.path().join(format!("{seed}.{format}"));
        tar_to_disk(tar.as_slice(), &disk, &options)?;
        let given = Tree::from_tar(tar.as_slice())?;
        given.must_equal(&Tree::from_tar(opengcs::vhd_to_tar(&disk, false, None)?)?)?;
        vm.hot_add_vhd(&disk, JUDGED, true, true).await?;
        let judged = judge(&vm, &given).await;
        vm.hot_remove_vhd(&disk).await?;
        judged.with_context(|| format!("seed {seed}, {format}"))?;
    }
    vm.hot_remove_vhd(&tools).await?;
    Ok(())
}

/// GNU tar, find and what they need, with a place for another disk.
fn write_tools(disk: &Path) -> Result<()> {
    let cache = opengcs::Environment::process()
        .data_dir()
        .join("cache/packages");
    let packages = [
        "tar",
        "findutils",
        "libacl1",
        "libselinux1",
        "libpcre2-8-0",
        "libc6",
        // Where libc6 has its loader below /usr alone, this brings the link to it.
        "base-files",
    ];
    let packages = debian::download(&packages, &cache)?;
    let mut tar = Vec::new();
    debian::write_data_archives(&packages, &mut tar)?;
    let mut rest = tar::Builder::new(&mut tar);
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_path("judged/")?;
    header.set_mode(0o755);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    rest.append(&header, &[][..])?;
    rest.finish()?;
    drop(rest);
    opengcs::tar_to_vhd(disk, tar.as_slice())?;
    Ok(())
}

async fn judge(vm: &UtilityVm, given: &Tree) -> Result<()> {
    let script = "t=tar; [ -x usr/bin/tar ] && t=/usr/bin/tar || t=/bin/tar; \
         exec chroot . $t --create --format=pax --numeric-owner \
         --xattrs --xattrs-include='*' --directory=/judged .";
    let walked = output(vm, script).await?;
    let mut expected = given.clone();
    expected.part_linked_devices();
    expected.must_equal(&Tree::from_tar(walked.as_slice())?)?;

    // What GNU tar does not say: which names are one node's, of any type, and the counts of links.
    let script = "exec chroot . /usr/bin/find /judged -mindepth 1 -printf '%P\\0%n\\0%i\\0'";
    let found = output(vm, script).await?;
    let words: Vec<&[u8]> = found.split(|byte| *byte == 0).collect();
    let counts = given.link_counts();
    let mut first_names = BTreeMap::new();
    let mut paths = 0;
    for words in words.chunks_exact(3) {
        let (path, links, inode) = (words[0], std::str::from_utf8(words[1])?, words[2]);
        paths += 1;
        let shown = String::from_utf8_lossy(path);
        let right = counts.get(path).copied();
        ensure!(
            right == Some(links.parse()?),
            "{shown}: {links} links, not {right:?}"
        );
        let first = given.first_name(path);
        let before = *first_names.entry(inode).or_insert(first);
        ensure!(before == first, "{shown}: its inode has another's name too");
    }
    let expected = counts.keys().filter(|path| !path.is_empty()).count();
    ensure!(paths == expected, "find found {paths} of {expected} paths");
    let nodes: BTreeSet<_> = first_names.values().collect();
    ensure!(
        nodes.len() == first_names.len(),
        "names of one node lead to several inodes"
    );
    Ok(())
}

/// What a script in the tools' folder prints.
async fn output(vm: &UtilityVm, script: &str) -> Result<Vec<u8>> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let script = format!("cd {TOOLS}; {script}");
    let words = ["sh", "-c", &script];
    let status = vm
        .run_process_with(words, tokio::io::empty(), &mut out, &mut err)
        .await?;
    let err = String::from_utf8_lossy(&err);
    ensure!(status.success(), "`{script}`: {status}: {err}");
    Ok(out)
}
