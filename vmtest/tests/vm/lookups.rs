//! A name in a very large folder is found by its hash, without a look at the others.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use opengcs::UtilityVm;
use tempfile::TempDir;

use crate::fixture::{said, shared};

pub(crate) fn trials() -> Vec<Trial> {
    vec![shared(
        "lookups::one_of_100_000_names_is_found_without_reading_them_all",
        one_of_many,
    )]
}

const NAMES: u32 = 100_000;
const MANY: &str = "/mnt/many";

async fn one_of_many(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let disk = folder.path().join("many.vhd");
    let mut tar = tar::Builder::new(Vec::new());
    for number in 0..NAMES {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        let name = format!("many/a name that is not too short {number}");
        tar.append_data(&mut header, name, &[][..])?;
    }
    opengcs::tar_to_vhd(&disk, tar.into_inner()?.as_slice())?;
    vm.hot_add_vhd(&disk, MANY, true, true).await?;
    let judged = judge(&vm).await;
    vm.hot_remove_vhd(&disk).await?;
    judged
}

async fn judge(vm: &UtilityVm) -> Result<()> {
    // The folder's entries alone have 40 bytes each at least.
    let all = u64::from(NAMES) * 40 / 512;
    for (number, there) in [(0, true), (77_777, true), (99_999, true), (NAMES, false)] {
        let look =
            format!("[ -e 'a name that is not too short {number}' ] && echo there || echo no");
        let (said, read) = sectors(vm, &look).await?;
        ensure!((said.trim() == "there") == there, "{number}: {said}");
        // Something was read: nothing of the folder was in memory.
        ensure!(read > 0, "{number}: nothing was read");
        ensure!(
            read * 10 < all,
            "{number}: {read} sectors read, and all names have {all}"
        );
    }
    // The index leads to every leaf.
    let missing = said(
        vm,
        &format!(
            "cd {MANY}/many; i=0; while [ $i -lt {NAMES} ]; do \
             [ -e \"a name that is not too short $i\" ] || echo $i; i=$((i + 37)); done"
        ),
    )
    .await?;
    ensure!(missing.trim().is_empty(), "not found: {missing}");
    Ok(())
}

/// Runs a script in the folder with nothing of the disk in memory; gives back what it printed, and how
/// many sectors the guest's kernel read for it.
async fn sectors(vm: &UtilityVm, script: &str) -> Result<(String, u64)> {
    let printed = said(
        vm,
        &format!(
            "while read device path rest; do [ $path = {MANY} ] && d=${{device#/dev/}}; \
             done </proc/mounts; \
             sectors() {{ set -- $(cat /sys/block/$d/stat); echo $3; }}; \
             cd {MANY}/many; echo 3 >/proc/sys/vm/drop_caches; before=$(sectors); \
             {script}; echo $(($(sectors) - before))"
        ),
    )
    .await?;
    let (printed, read) = printed
        .trim_end()
        .rsplit_once('\n')
        .context("two lines are printed")?;
    Ok((printed.to_owned(), read.trim().parse()?))
}
