//! `run`, as far as that goes without a VM: everything that is wrong before one starts.

use std::fs;

use crate::fixture::{Place, kernel, said};

/// A place with a kernel and an initrd, as far as files tell.
fn ready() -> Place {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    fs::write(place.data().join("bootx64.efi"), kernel("6.9.1")).unwrap();
    fs::write(place.data().join("initrd.img"), b"070701").unwrap();
    place
}

#[test]
fn a_missing_kernel_or_initrd_is_named() {
    let place = Place::new();
    place.fails(&["run", "--", "true"], 125, &["kernel", "bootx64.efi"]);
    fs::create_dir(place.data()).unwrap();
    fs::write(place.data().join("bootx64.efi"), kernel("6.9.1")).unwrap();
    place.fails(&["run", "--", "true"], 125, &["initrd", "initrd.img"]);
    fs::write(place.data().join("initrd.img"), b"nonsense").unwrap();
    place.fails(&["run", "--", "true"], 125, &["initrd.img"]);
    place.fails(&["run", "--boot", "vhdx", "--", "true"], 125, &["uvm.vhdx"]);
    let other = place.path("other");
    fs::create_dir(&other).unwrap();
    let option = format!("lcow.kirdpath={}", other.display());
    place.fails(
        &["run", "-o", &option, "--", "true"],
        125,
        &[&format!("other{}bootx64.efi", std::path::MAIN_SEPARATOR)],
    );
}

#[test]
fn no_hypervisor_is_told_with_what_to_install() {
    let place = ready();
    let before = place.names();
    let output = place
        .opengcs(["run", "--", "true"])
        .env("PATH", "")
        .output()
        .unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(125), "{said}");
    if cfg!(windows) {
        assert!(said.contains("Microsoft-Hyper-V"), "{said}");
    } else {
        assert!(said.to_lowercase().contains("qemu"), "{said}");
        assert!(said.contains("hint: install QEMU"), "{said}");
    }
    assert_eq!(place.names(), before);
}

#[test]
fn disks_are_checked_before_anything_starts() {
    let place = ready();
    place.write("a.vhd", b"not really");
    fs::create_dir(place.path("folder")).unwrap();
    for (disks, words) in [
        (&["gone.vhd:/mnt"][..], &["gone.vhd"][..]),
        (&["folder:/mnt"], &["folder"]),
        (&["a.vhd:/"], &["root"]),
        (&["a.vhd:/mnt/../etc"], &[".."]),
        (&["a.vhd:/mnt", "a.vhd:/other"], &["a.vhd", "twice"]),
    ] {
        let mut arguments = vec!["run"];
        for disk in disks {
            arguments.extend(["--disk", disk]);
        }
        arguments.extend(["--", "true"]);
        place.fails(&arguments, 125, words);
    }
}

#[test]
fn options_are_checked_and_strange_ones_are_mentioned() {
    let place = Place::new();
    place.fails(
        &["run", "-o", "lcow.timeout=soon", "--", "true"],
        125,
        &["lcow.timeout", "soon"],
    );
    place.fails(&["run", "--cpus", "0", "--", "true"], 125, &["processors"]);
    place.fails(&["run", "--memory", "1M", "--", "true"], 125, &["memory"]);
    place.fails(&["run", "-e", "=x", "--", "true"], 2, &["=x"]);
    let output = place
        .opengcs(["run", "-o", "lcow.colour=blue", "-o", "word", "--", "true"])
        .output()
        .unwrap();
    let said = said(&output);
    assert!(
        said.contains("warning") && said.contains("lcow.colour"),
        "{said}"
    );
    assert!(said.contains("word"), "{said}");
}

#[test]
fn a_disk_that_is_not_there_is_told_without_names_of_fields() {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    let kernel = kernel("6.9.1");
    fs::write(place.data().join("bootx64.efi"), kernel).unwrap();
    fs::write(place.data().join("initrd.img"), b"070701").unwrap();
    let output = place
        .opengcs(["run", "--disk", "nope.vhd:/mnt", "--", "ls"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert_eq!(said, "opengcs: there is no disk nope.vhd\n");
}
