//! Starting, disks and ends of real machines.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use opengcs_machine::qemu::Qemu;
use opengcs_machine::{
    Boot, Chipset, DiskFormat, DiskSpec, ErrorKind, ExitReason, Machine, Port, Slot, State,
};

use crate::guest::{Guest, config};

fn disk(path: &Path, size: usize, first: u8) {
    let mut bytes = vec![0; size];
    bytes[0] = first;
    std::fs::write(path, bytes).unwrap();
}

fn qemu_img(arguments: &[&str]) {
    let status = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(status.status.success(), "{status:?}");
}

/// The one who asked has given up by the time the answer comes, so what was asked for is undone.
#[tokio::test]
async fn an_answer_that_comes_too_late_leaves_nothing_attached() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw");
    disk(&path, 1 << 20, b'r');
    let runtime = tempfile::tempdir().unwrap();
    let machine = Qemu::start(config(runtime.path())).await.unwrap();
    let process = machine.describe().process_id.unwrap().to_string();
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, process.as_str()]).status();
        assert!(status.unwrap().success());
    };
    let attach = || machine.attach(DiskSpec::new(&path, DiskFormat::Raw, false));
    signal("-STOP");
    let late = attach().await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::TimedOut, "{late}");
    let meanwhile = attach().await.unwrap_err();
    assert_eq!(meanwhile.kind(), ErrorKind::DiskInUse, "{meanwhile}");
    signal("-CONT");
    let slot = loop {
        match attach().await {
            Ok(slot) => break slot,
            Err(error) => assert_eq!(error.kind(), ErrorKind::DiskInUse, "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(slot.controller, 0);
    machine.detach(slot).await.unwrap();
    // The file is closed: another may write to it.
    let other = machine.attach(DiskSpec::new(&path, DiskFormat::Raw, false));
    machine.detach(other.await.unwrap()).await.unwrap();
    machine.terminate().await;
}

#[tokio::test]
async fn disks_come_and_go_and_the_guest_powers_off() {
    let mut guest = Guest::boot_with(|config| config.scsi_controllers(2)).await;
    assert_eq!(guest.machine.state(), State::Running);
    let dir = guest.dir.path().to_owned();
    let raw = dir.join("raw");
    disk(&raw, 1 << 20, b'r');
    // A fixed VHD without geometry: the bytes and a footer.
    let vhd = dir.join("vhd");
    disk(&vhd, (2 << 20) + 512, b'v');
    let vhdx = dir.join("vhdx");
    qemu_img(&["create", "-q", "-f", "vhdx", vhdx.to_str().unwrap(), "64M"]);

    let attach = |path: &Path, format, read_only| {
        let disk = DiskSpec::new(path, format, read_only);
        guest.machine.attach(disk)
    };
    assert_eq!(
        attach(&raw, DiskFormat::Raw, true).await.unwrap(),
        Slot {
            controller: 0,
            lun: 0
        }
    );
    assert_eq!(
        attach(&vhd, DiskFormat::FixedVhd, true).await.unwrap(),
        Slot {
            controller: 0,
            lun: 1
        }
    );
    assert_eq!(
        attach(&vhdx, DiskFormat::Vhdx, false).await.unwrap(),
        Slot {
            controller: 0,
            lun: 2
        }
    );

    let twice = attach(&raw, DiskFormat::Raw, true).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::DiskInUse);
    let missing = attach(&dir.join("x"), DiskFormat::Raw, true)
        .await
        .unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let not_vhdx = dir.join("not-vhdx");
    disk(&not_vhdx, 1 << 20, b'n');
    let refused = attach(&not_vhdx, DiskFormat::Vhdx, true).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");

    let disks = guest.disks(|disks| disks.split(',').count() == 3).await;
    let sizes: Vec<_> = disks
        .split(',')
        .map(|disk| {
            disk.split_whitespace()
                .skip(2)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    assert_eq!(sizes, ["2048 1", "4096 1", "131072 0"]);
    let name = |index: usize| {
        let disk = disks.split(',').nth(index).unwrap();
        disk.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(
        guest.order(&format!("head {}", name(1))).await,
        b'v'.to_string()
    );
    assert!(
        guest
            .order(&format!("write {}", name(0)))
            .await
            .starts_with("error")
    );
    assert_eq!(guest.order(&format!("write {}", name(2))).await, "ok");

    // Another machine may not write to what this one has, and need not boot to be told.
    let other_dir = tempfile::tempdir().unwrap();
    let other = Qemu::start(config(other_dir.path())).await.unwrap();
    let locked = other
        .attach(DiskSpec::new(&vhdx, DiskFormat::Vhdx, false))
        .await
        .unwrap_err();
    assert_eq!(locked.kind(), ErrorKind::DiskLocked, "{locked}");
    other
        .attach(DiskSpec::new(&vhd, DiskFormat::FixedVhd, true))
        .await
        .unwrap();
    assert_eq!(other.terminate().await.reason, ExitReason::Terminated);
    drop(other);
    assert_eq!(std::fs::read_dir(other_dir.path()).unwrap().count(), 0);

    let middle = Slot {
        controller: 0,
        lun: 1,
    };
    guest.machine.detach(middle).await.unwrap();
    let again = guest.machine.detach(middle).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound);
    guest.disks(|disks| disks.split(',').count() == 2).await;
    // The file is free at once, and the slot as soon as QEMU has taken the device apart.
    let mut slots = Vec::new();
    loop {
        let slot = guest
            .machine
            .attach(DiskSpec::new(&vhd, DiskFormat::FixedVhd, true))
            .await
            .unwrap();
        slots.push(slot);
        if slot == middle {
            break;
        }
        guest.machine.detach(slot).await.unwrap();
    }
    assert!(slots.iter().all(|slot| slot.lun < 64), "{slots:?}");

    guest.send("poweroff").await;
    assert_eq!(guest.machine.wait().await.reason, ExitReason::PoweredOff);
    assert_eq!(guest.machine.state(), State::Stopped);
    let late = guest.machine.detach(middle).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::GuestDied);
    qemu_img(&["check", "-q", vhdx.to_str().unwrap()]);
}

#[tokio::test]
async fn a_panic_is_told_by_its_message_and_a_stopped_qemu_ends() {
    let mut guest = Guest::boot().await;
    guest.send("panic").await;
    let exit = guest.machine.wait().await;
    assert!(
        matches!(&exit.reason, ExitReason::Panicked(message) if message.contains("sysrq")),
        "{exit}"
    );

    let dir = tempfile::tempdir().unwrap();
    let machine = Qemu::start(config(dir.path())).await.unwrap();
    let id = machine.describe().process_id.unwrap();
    let stopped = Command::new("kill")
        .args(["-STOP", &id.to_string()])
        .status();
    assert!(stopped.unwrap().success());
    assert_eq!(machine.terminate().await.reason, ExitReason::Terminated);
    assert_eq!(machine.terminate().await.reason, ExitReason::Terminated);
    assert!(!Path::new(&format!("/proc/{id}")).exists());

    let machine = Qemu::start(config(dir.path())).await.unwrap();
    let id = machine.describe().process_id.unwrap();
    let killed = Command::new("kill")
        .args(["-KILL", &id.to_string()])
        .status();
    assert!(killed.unwrap().success());
    assert_eq!(machine.wait().await.reason, ExitReason::Killed(9));
}

#[tokio::test]
async fn what_cannot_start_says_why_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Qemu::create(config(dir.path()).qemu("/nonexistent/qemu")).unwrap();
    let mut listener = machine.listen(Port(1)).unwrap();
    let error = machine.power_on().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInstalled);
    assert_eq!(machine.state(), State::Failed);
    assert!(listener.accept().await.is_err());
    let again = machine.power_on().await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::WrongState);
    machine.terminate().await;

    let mut wrong = config(dir.path());
    wrong.extra_arguments = vec!["-device".into(), "no-such-device".into()];
    let error = Qemu::start(wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StartFailed);
    assert!(error.to_string().contains("no-such-device"), "{error}");

    let mut wrong = config(dir.path());
    wrong.boot = Boot::LinuxKernel {
        kernel: dir.path().join("no-kernel"),
        initrd: None,
        command_line: String::new(),
    };
    let error = Qemu::start(wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("no-kernel"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// The part of the next test that is killed.
#[tokio::test]
#[ignore = "run by another test"]
async fn owner_that_never_ends() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Qemu::start(config(dir.path())).await.unwrap();
    println!("qemu {}", machine.describe().process_id.unwrap());
    std::future::pending::<()>().await;
}

#[test]
fn qemu_does_not_outlive_a_killed_owner() {
    use std::io::{BufRead, BufReader};
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("lifecycle::owner_that_never_ends")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let qemu = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("qemu ").map(|(_, id)| id.to_owned()))
        .unwrap();
    let process = format!("/proc/{qemu}");
    assert!(Path::new(&process).exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let gone = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        // Orphans may wait for a reaper that this container lacks.
        std::fs::read_to_string(format!("{process}/stat"))
            .map_or(true, |stat| stat.contains(") Z "))
    });
    assert!(gone, "qemu {qemu} runs on");
}

/// Not a test: how long boots take on each machine type, and which clock the guest ends with.
#[tokio::test]
#[ignore = "a measurement, to be run by hand"]
async fn boots() {
    let rounds = std::env::var("OPENGCS_TEST_ROUNDS").map_or(8, |rounds| rounds.parse().unwrap());
    let arguments = std::env::var("OPENGCS_TEST_ARGUMENTS").unwrap_or_default();
    // Builds the guest's program outside the measurement.
    drop(Guest::boot().await);
    for round in 0..rounds {
        for chipset in [Chipset::Q35, Chipset::MicroVm] {
            let start = Instant::now();
            let mut guest = Guest::boot_with(|mut config| {
                if let Boot::LinuxKernel { command_line, .. } = &mut config.boot {
                    *command_line = format!("quiet {arguments}");
                }
                config.chipset(chipset)
            })
            .await;
            let dialled = start.elapsed();
            let clock = "cat /sys/devices/system/clocksource/clocksource0/current_clocksource";
            let clock = guest.order(clock).await;
            let start = Instant::now();
            guest.send("poweroff").await;
            let exit = guest.machine.wait().await;
            let off = start.elapsed();
            println!("{round} {chipset:?} dialled {dialled:?} clock {clock} off {off:?} {exit}");
        }
    }
}
