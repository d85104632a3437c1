use super::*;

fn around(linux_boot: LinuxBoot) -> Surroundings {
    Surroundings {
        owner: "opengcs-77-133000000000000000".into(),
        linux_boot,
        console_pipe: r"\\.\pipe\opengcs-0f0e".into(),
    }
}

fn kernel(initrd: Option<&str>) -> MachineConfig {
    let boot = Boot::LinuxKernel {
        kernel: "/Linux Containers/bootx64.efi".into(),
        initrd: initrd.map(Into::into),
        command_line: "quiet loglevel=7".into(),
    };
    MachineConfig::new("uvm", "/run", boot)
}

#[track_caller]
fn is_golden(document: &Value, golden: &str) {
    let golden: Value = serde_json::from_str(golden).unwrap();
    assert_eq!(
        *document,
        golden,
        "{}",
        serde_json::to_string_pretty(document).unwrap()
    );
}

#[test]
fn a_kernel_is_booted_directly() {
    let config = kernel(Some("/Linux Containers/initrd.img"))
        .memory_mib(1023)
        .processors(3)
        .scsi_controllers(4);
    let document = compute_system(&config, &around(LinuxBoot::KernelDirect)).unwrap();
    is_golden(
        &document,
        include_str!("../../../testdata/hcs/kernel_direct.json"),
    );
}

#[test]
fn a_kernel_is_booted_by_uefi_from_its_folder() {
    let config = kernel(Some("/Linux Containers/initrd.img"));
    let document = compute_system(&config, &around(LinuxBoot::Uefi)).unwrap();
    is_golden(&document, include_str!("../../../testdata/hcs/uefi.json"));
    let apart = kernel(Some("/elsewhere/initrd.img"));
    let error = compute_system(&apart, &around(LinuxBoot::Uefi)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("/elsewhere"), "{error}");
}

#[test]
fn a_disk_is_booted_by_uefi_at_the_first_place() {
    let mut config = kernel(None);
    config.boot = Boot::Disk {
        disk: DiskSpec::new("/Linux Containers/uvm.vhdx", DiskFormat::Vhdx, false),
        firmware: None,
    };
    let document = compute_system(&config, &around(LinuxBoot::KernelDirect)).unwrap();
    is_golden(&document, include_str!("../../../testdata/hcs/disk.json"));
}

#[test]
fn a_kernel_needs_no_initrd() {
    let document = compute_system(&kernel(None), &around(LinuxBoot::KernelDirect)).unwrap();
    let direct = &document["VirtualMachine"]["Chipset"]["LinuxKernelDirect"];
    assert_eq!(direct.get("InitRdPath"), None);
    let uefi = compute_system(&kernel(None), &around(LinuxBoot::Uefi)).unwrap();
    let options = &uefi["VirtualMachine"]["Chipset"]["Uefi"]["BootThis"]["OptionalData"];
    assert!(!options.as_str().unwrap().contains("initrd"));
}

#[test]
fn disks_come_and_go_by_controller_and_lun() {
    let slot = Slot {
        controller: 3,
        lun: 63,
    };
    let disk = DiskSpec::new("/layer.vhd", DiskFormat::FixedVhd, true);
    is_golden(
        &attach(slot, &disk).unwrap(),
        include_str!("../../../testdata/hcs/attach.json"),
    );
    is_golden(
        &detach(slot).unwrap(),
        include_str!("../../../testdata/hcs/detach.json"),
    );
}

#[test]
fn what_hyper_v_does_not_have_is_refused() {
    let raw = DiskSpec::new("/disk.img", DiskFormat::Raw, true);
    let slot = Slot {
        controller: 0,
        lun: 0,
    };
    let error = attach(slot, &raw).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("/disk.img"), "{error}");
    let far = Slot {
        controller: 4,
        lun: 0,
    };
    assert_eq!(detach(far).unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[test]
fn a_port_is_the_first_field_of_a_service() {
    let id = |port| service_id(Port(port)).to_string();
    assert_eq!(id(1), "00000001-facb-11e6-bd58-64006a7986d3");
    assert_eq!(id(u32::MAX), "ffffffff-facb-11e6-bd58-64006a7986d3");
}
