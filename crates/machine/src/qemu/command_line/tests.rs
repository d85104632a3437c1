use super::*;
use crate::disk::{DiskFormat, DiskSpec};

fn config() -> MachineConfig {
    MachineConfig::new(
        "uvm",
        "/run/uvm",
        Boot::LinuxKernel {
            kernel: "/boot/vm,linuz".into(),
            initrd: Some("/boot/initrd".into()),
            command_line: "quiet".to_owned(),
        },
    )
}

fn host() -> Host {
    Host {
        kvm: false,
        tsc_khz: Some(2_445_000),
        firmware: Some("/usr/share/ovmf/OVMF.fd".into()),
        qmp: 10,
        console: 11,
        vsock: 12,
    }
}

fn line(config: &MachineConfig, host: &Host) -> String {
    arguments(config, host)
        .unwrap()
        .iter()
        .map(|word| word.to_str().unwrap().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn microvm_under_emulation() {
    let expected = "\
-name
guest=uvm,debug-threads=on
-nodefaults
-no-user-config
-display
none
-no-reboot
-sandbox
on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-accel
tcg,thread=multi
-cpu
max,erms=off,fsrm=off
-M
microvm,pcie=on,acpi=on,pit=off,pic=off,rtc=on,memory-backend=mem
-m
512M
-smp
1
-object
memory-backend-memfd,id=mem,size=512M,share=on
-chardev
socket,id=qmp,fd=10
-mon
chardev=qmp,mode=control
-chardev
socket,id=console,fd=11
-serial
chardev:console
-chardev
socket,id=vsock,fd=12
-device
vhost-user-vsock-pci,id=vsock0,chardev=vsock
-device
virtio-scsi-pci,id=scsi0
-kernel
/boot/vm,linuz
-initrd
/boot/initrd
-append
console=ttyS0 panic=-1 reboot=t init_on_alloc=0 tsc_early_khz=2445000 tsc=reliable quiet";
    assert_eq!(line(&config().chipset(Chipset::MicroVm), &host()), expected);
}

#[test]
fn q35_needs_no_clock_rate() {
    let line = line(&config().chipset(Chipset::Q35), &host());
    assert!(line.contains("\nq35,memory-backend=mem\n"));
    assert!(
        line.ends_with("\nconsole=ttyS0 panic=-1 reboot=t init_on_alloc=0 no_timer_check quiet")
    );
}

#[test]
fn kvm_takes_the_hosts_processor() {
    let host = Host {
        kvm: true,
        ..host()
    };
    let line = line(&config(), &host);
    assert!(line.contains("-accel\nkvm\n-cpu\nhost\n"));
    assert!(!line.contains("tsc_early_khz"));
}

#[test]
fn without_a_clock_rate_the_choice_is_q35() {
    assert_eq!(chipset(&config(), false, None), Chipset::Q35);
}

#[test]
fn controllers_are_numbered_as_the_slots_are() {
    let line = line(&config().scsi_controllers(4), &host());
    for controller in 0..4 {
        assert!(line.contains(&format!("virtio-scsi-pci,id=scsi{controller}\n")));
    }
}

#[test]
fn a_disk_boots_through_firmware_on_q35() {
    let mut config = config();
    config.boot = Boot::Disk {
        disk: DiskSpec::new("/images/uvm,1.vhdx", DiskFormat::Vhdx, true),
        firmware: None,
    };
    let line = line(&config, &host());
    assert!(line.contains("\nq35,"));
    assert!(line.contains("-bios\n/usr/share/ovmf/OVMF.fd\n"));
    // What firmware and guest write is forgotten: the file is only read, and a comma is written twice.
    let drive = "\n-drive\nif=none,id=boot,snapshot=on,file=json:{";
    assert!(line.contains(drive), "{line}");
    assert!(line.contains(r#""filename":"/images/uvm,,1.vhdx",,"read-only":true"#));
    assert!(line.contains(r#""bootindex":0"#));
    assert!(line.contains(r#""drive":"boot""#));
    assert!(!line.contains("-kernel"));
    let code = Host {
        firmware: Some("/usr/share/OVMF/OVMF_CODE_4M.fd".into()),
        ..host()
    };
    let line = self::line(&config, &code);
    let flash = "-drive\nif=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd\n";
    assert!(line.contains(flash), "{line}");
    config.boot = Boot::Disk {
        disk: DiskSpec::new("/images/uvm.vhdx", DiskFormat::Vhdx, false),
        firmware: None,
    };
    let line = self::line(&config, &host());
    assert!(!line.contains("snapshot=on") && line.contains("-blockdev"));
    assert!(line.contains(r#""drive":"disk-0-0-0""#), "{line}");
}
