//! Tests that boot real utility VMs. Those that leave the VM as they found it share one boot.
#![allow(
    clippy::print_stderr,
    reason = "a test program says on its terminal why it cannot start"
)]

mod boot_disk;
mod command_line;
mod containers;
mod dirty;
mod disks;
mod endings;
mod examples;
mod exports;
mod faults;
mod fixture;
mod identities;
mod lookups;
mod monitors;
mod mounts;
mod overlays;
mod processes;
mod roots;
mod soak;
mod squashes;
mod starts;
mod streams;
mod terminal;
mod tools;
mod verity;
mod walks;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two processors carry two VMs under emulation; more only slow each other down.
    arguments.test_threads.get_or_insert(2);
    let mut trials = Vec::new();
    trials.extend(processes::trials());
    trials.extend(streams::trials());
    trials.extend(identities::trials());
    trials.extend(containers::trials());
    trials.extend(disks::trials());
    trials.extend(mounts::trials());
    trials.extend(verity::trials());
    trials.extend(overlays::trials());
    trials.extend(squashes::trials());
    trials.extend(exports::trials());
    trials.extend(dirty::trials());
    trials.extend(tools::trials());
    trials.extend(roots::trials());
    trials.extend(walks::trials());
    trials.extend(lookups::trials());
    trials.extend(soak::trials());
    trials.extend(starts::trials());
    trials.extend(endings::trials());
    trials.extend(faults::trials());
    trials.extend(boot_disk::trials());
    trials.extend(command_line::trials());
    trials.extend(monitors::trials());
    trials.extend(terminal::trials());
    trials.extend(examples::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The shared VMs must end as every other: asked, and leaving nothing.
    if let Err(error) = fixture::stop_shared_vms() {
        eprintln!("a shared VM did not stop as it should: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
