//! `doctor`: what an empty host is told.

use crate::fixture::Place;

#[test]
fn an_empty_host_is_told_what_it_lacks() {
    let place = Place::new();
    let before = place.names();
    let output = place.opengcs(["doctor"]).env("PATH", "").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let hypervisor = if cfg!(windows) {
        "Microsoft-Hyper-V"
    } else {
        "qemu-system-x86"
    };
    for word in [
        "missing",
        "hypervisor",
        hypervisor,
        "opengcs kernel install",
        "opengcs initrd build",
    ] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    assert_eq!(place.names(), before);
    let output = place
        .opengcs(["doctor", "--json"])
        .env("PATH", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["can_start"], false);
    assert!(found["checks"].as_array().unwrap().iter().any(|check| {
        check["name"] == "kernel" && check["outcome"] == "bad" && check["hint"].is_string()
    }));
}

#[cfg(unix)] // A shell script stands for QEMU.
#[test]
fn a_host_with_everything_is_told_so() {
    let place = Place::new();
    std::fs::create_dir(place.data()).unwrap();
    std::fs::write(
        place.data().join("bootx64.efi"),
        crate::fixture::kernel("6.9.1"),
    )
    .unwrap();
    std::fs::write(place.data().join("initrd.img"), b"070701").unwrap();
    let qemu = place.path("qemu-system-x86_64");
    let script = |devices: &str| {
        format!(
            "#!/bin/sh\ncase \"$*\" in\n--version) echo QEMU emulator version 9.9.9;;\n\
             *-device*) {devices};;\n*) echo 'microvm  a'; echo 'q35  b';;\nesac\n"
        )
    };
    let all = r#"echo 'name "vhost-user-vsock-pci", name "virtio-scsi-pci", name "scsi-hd"'"#;
    std::fs::write(&qemu, script(all)).unwrap();
    std::fs::set_permissions(&qemu, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = place
        .opengcs(["doctor"])
        .env("PATH", place.work())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("9.9.9") && text.contains("VMs can be started here."),
        "{text}"
    );
    for words in [
        "vhost-user-vsock-pci",
        "machines microvm, q35",
        "MiB are free",
    ] {
        assert!(text.contains(words), "no {words} in {text}");
    }
    // One without the device that the agent is reached by.
    std::fs::write(
        &qemu,
        script(r#"echo 'name "virtio-scsi-pci", name "scsi-hd"'"#),
    )
    .unwrap();
    let output = place
        .opengcs(["doctor"])
        .env("PATH", place.work())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("this QEMU has no vhost-user-vsock-pci"),
        "{text}"
    );
}
