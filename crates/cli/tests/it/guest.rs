//! `kernel` and `initrd`, as far as that goes without a network.

use std::fs;

use crate::fixture::{Place, kernel};

#[test]
fn a_kernel_file_is_installed_and_listed() {
    let place = Place::new();
    place.write("bzImage", &kernel("6.9.1-test"));
    let modules = place.path("6.9.1-test");
    fs::create_dir(&modules).unwrap();
    let line = place.ok(&[
        "kernel",
        "install",
        "--file",
        "bzImage",
        "--modules",
        "6.9.1-test",
    ]);
    assert!(line.contains("6.9.1-test"), "{line}");
    let table = place.ok(&["kernel", "ls"]);
    assert!(
        table.contains("* ") && table.contains("6.9.1-test"),
        "{table}"
    );
    let list: serde_json::Value =
        serde_json::from_str(&place.ok(&["kernel", "ls", "--json"])).unwrap();
    assert_eq!(list[0]["release"], "6.9.1-test");
    assert_eq!(list[0]["current"], true);
    assert_eq!(
        place.ok(&["-q", "kernel", "install", "--file", "bzImage"]),
        ""
    );
}

#[test]
fn no_kernel_is_no_failure_to_list() {
    let place = Place::new();
    assert_eq!(place.ok(&["kernel", "ls"]), "");
    assert_eq!(place.ok(&["kernel", "ls", "--json"]).trim(), "[]");
}

#[test]
fn what_is_no_kernel_is_refused() {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    place.write("text", b"hello");
    place.write("not.deb", b"hello");
    let install = ["kernel", "install"];
    for (more, word) in [
        (["--file", "gone"], "gone"),
        (["--file", "text"], "text"),
        (["--file", "."], "."),
        (["--deb", "gone.deb"], "gone.deb"),
        // A distribution's programs look into packages, and nothing else does.
        (
            ["--deb", "not.deb"],
            if cfg!(windows) { "dpkg-deb" } else { "not.deb" },
        ),
    ] {
        place.fails(&[install, more].concat(), 1, &[word]);
    }
}

#[test]
fn an_initrd_needs_a_kernel_its_modules_and_a_static_agent() {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    place.fails(&["initrd", "build"], 1, &["there is no kernel"]);
    place.fails(&["uvm", "build"], 1, &["there is no kernel"]);
    fs::write(place.data().join("bootx64.efi"), kernel("6.9.1-test")).unwrap();
    place.fails(&["initrd", "build"], 1, &["modules", "6.9.1-test"]);
    place.fails(&["initrd", "build", "--kernel", "gone"], 1, &["gone"]);
}

#[test]
fn an_initrd_is_not_built_of_what_cannot_run() {
    let place = Place::new();
    let modules = place.data().join("modules/6.9.1-test");
    fs::create_dir_all(&modules).unwrap();
    fs::write(place.data().join("bootx64.efi"), kernel("6.9.1-test")).unwrap();
    // Everything that it needs is built into this kernel.
    let builtin: String = [
        "virtio_pci",
        "virtio_scsi",
        "sd_mod",
        "ext4",
        "overlay",
        "vsock",
        "vmw_vsock_virtio_transport",
        "virtio_blk",
        "virtio_console",
        "scsi_mod",
        "hv_sock",
        "hv_storvsc",
        "hv_vmbus",
    ]
    .iter()
    .map(|name| format!("kernel/{name}.ko\n"))
    .collect();
    fs::write(modules.join("modules.builtin"), builtin).unwrap();
    fs::write(modules.join("modules.dep"), "").unwrap();
    place.write("script", b"#!/bin/sh\n");
    place.fails(&["initrd", "build", "--agent", "gone"], 1, &["gone"]);
    place.fails(&["initrd", "build", "--agent", "script"], 1, &["script"]);
    place.fails(
        &[
            "initrd",
            "build",
            "--agent",
            "script",
            "--add-module",
            "nonsense",
        ],
        1,
        &["nonsense"],
    );
}
