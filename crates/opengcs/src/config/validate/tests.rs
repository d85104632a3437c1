use std::time::Duration;

use super::*;
use crate::config::MappedVirtualDisk;
use crate::environment::Environment;
use crate::guest::bzimage::tests::fake_kernel;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn put(&self, name: &str, content: &[u8]) -> std::path::PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn with_kernel_and_initrd(self) -> Self {
        self.put("bootx64.efi", &fake_kernel("6.1.0"));
        let contents = initrd::Contents {
            release: "6.1.0".into(),
            ..Default::default()
        };
        let bytes = initrd::write(&contents, initrd::Compression::None, Vec::new()).unwrap();
        self.put("initrd.img", &bytes);
        self
    }

    fn config(&self, words: &[&str]) -> Config {
        let environment = Environment::fixed([("OPENGCS_DATA_DIR", self.folder.path())]);
        Config::generate_default_with(words, &environment).unwrap()
    }
}

fn refused(mut config: Config, words: &[&str]) {
    let error = config.validate().unwrap_err();
    assert_eq!(config.boot_mode, None);
    let line = error.report();
    assert!(!line.contains('\n'), "{line}");
    for word in words {
        assert!(line.contains(word), "{line:?} does not say {word:?}");
    }
}

#[test]
fn auto_takes_kernel_and_initrd_when_there_is_no_vhdx() {
    let bench = Bench::new().with_kernel_and_initrd();
    let mut config = bench.config(&["lcow.bootparameters=debug"]);
    assert_eq!(config.requested_mode, RequestedMode::Auto);
    assert_eq!(config.validate().unwrap(), BootMode::KernelInitrd);
    assert_eq!(config.boot_mode, Some(BootMode::KernelInitrd));
}

#[test]
fn auto_takes_the_vhdx_first_and_then_no_boot_parameters() {
    let bench = Bench::new().with_kernel_and_initrd();
    bench.put("uvm.vhdx", b"vhdx");
    assert_eq!(bench.config(&[]).validate().unwrap(), BootMode::Vhdx);
    refused(
        bench.config(&["lcow.bootparameters=x"]),
        &["boot parameters", "uvm.vhdx"],
    );
    let mut config = bench.config(&["lcow.bootparameters=x"]);
    config.requested_mode = RequestedMode::KernelInitrd;
    assert_eq!(config.validate().unwrap(), BootMode::KernelInitrd);
}

#[test]
fn a_timeout_does_not_change_the_mode() {
    let bench = Bench::new();
    let config = bench.config(&["lcow.timeout=5"]);
    assert_eq!(config.requested_mode, RequestedMode::Auto);
    assert_eq!(config.uvm_timeout, Duration::from_secs(5));
}

#[test]
fn the_timeout_comes_from_option_then_environment_then_default() {
    let make = |words: &[&str], value: &str| {
        let environment = Environment::fixed([("OPENGCS_UVM_TIMEOUT_SECONDS", value)]);
        Config::generate_default_with(words, &environment)
    };
    let seconds = |config: Result<Config>| config.unwrap().uvm_timeout.as_secs();
    assert_eq!(seconds(make(&["lcow.timeout=5"], "7")), 5);
    assert_eq!(seconds(make(&["lcow.timeout=0"], "7")), 7);
    assert_eq!(seconds(make(&[], "7")), 7);
    assert_eq!(seconds(make(&[], "")), 300);
    assert_eq!(seconds(make(&[], "0")), 300);
    for bad in ["x", "-1"] {
        let error = make(&[], bad).unwrap_err();
        assert!(error.to_string().contains(super::super::TIMEOUT_VARIABLE));
    }
}

#[test]
fn an_asked_for_vhdx_must_be_there() {
    let bench = Bench::new().with_kernel_and_initrd();
    let mut config = bench.config(&[]);
    config.requested_mode = RequestedMode::Vhdx;
    refused(config.clone(), &["uvm.vhdx", "lcow.vhdx"]);
    config.options.vhdx = "".into();
    refused(config, &["no VHDX is given"]);
}

#[test]
fn kernel_and_initrd_must_be_named_and_there() {
    let bench = Bench::new();
    refused(bench.config(&[]), &["bootx64.efi", "kernel install"]);
    bench.put("bootx64.efi", &fake_kernel("6.1.0"));
    refused(bench.config(&[]), &["initrd.img", "initrd build"]);
    bench.put("initrd.img", b"");
    refused(bench.config(&[]), &["initrd.img", "empty"]);
    bench.put("initrd.img", b"hello world");
    refused(bench.config(&[]), &["initrd.img", "not an initrd"]);
    bench.put("bootx64.efi", b"hello");
    refused(bench.config(&[]), &["bootx64.efi", "not a Linux kernel"]);
    for path in ["../x", "a/b", "a/", "..", "."] {
        let word = format!("lcow.kernel={path}");
        refused(bench.config(&[&word]), &["lcow.kernel", path, "no path"]);
    }
    if cfg!(windows) {
        for path in [r"..\x", r"a\b", r"C:x", r"\x"] {
            let word = format!("lcow.initrd={path}");
            refused(bench.config(&[&word]), &["lcow.initrd", "no path"]);
        }
    }
    let mut config = bench.config(&[]);
    config.options.initrd_file.clear();
    refused(config, &["lcow.initrd", "empty"]);
    fs::remove_file(bench.folder.path().join("bootx64.efi")).unwrap();
    fs::create_dir(bench.folder.path().join("bootx64.efi")).unwrap();
    refused(bench.config(&[]), &["bootx64.efi", "folder"]);
}

#[test]
fn a_kernel_of_another_release_than_the_initrd_is_refused() {
    let bench = Bench::new().with_kernel_and_initrd();
    bench.put("bootx64.efi", &fake_kernel("6.2.0"));
    refused(bench.config(&[]), &["6.1.0", "6.2.0", "initrd build"]);
}

#[test]
fn mapped_disks_are_checked_in_both_modes() {
    let bench = Bench::new().with_kernel_and_initrd();
    let disk = bench.put("layer.vhd", b"disk");
    for mode in [RequestedMode::KernelInitrd, RequestedMode::Vhdx] {
        bench.put("uvm.vhdx", b"vhdx");
        let with = |disks: Vec<MappedVirtualDisk>| {
            let mut config = bench.config(&[]);
            config.requested_mode = mode;
            config.mapped_virtual_disks = disks;
            config
        };
        assert!(
            with(vec![MappedVirtualDisk::new(&disk, "/a")])
                .validate()
                .is_ok()
        );
        refused(
            with(vec![MappedVirtualDisk::new("/gone.vhd", "/a")]),
            &["/gone.vhd"],
        );
        for path in ["", "a", "/a/../b", "/"] {
            refused(
                with(vec![MappedVirtualDisk::new(&disk, path)]),
                &["layer.vhd", "in the VM"],
            );
        }
        refused(
            with(vec![
                MappedVirtualDisk::new(&disk, "/a"),
                MappedVirtualDisk::new(&disk, "/b"),
            ]),
            &["twice"],
        );
    }
}

#[test]
fn numbers_and_boot_parameters_out_of_range_are_refused() {
    let bench = Bench::new().with_kernel_and_initrd();
    let mut config = bench.config(&[]);
    config.memory_mib = 1;
    refused(config, &["memory"]);
    let mut config = bench.config(&[]);
    config.scsi_controllers = 5;
    refused(config, &["SCSI controllers"]);
    let mut config = bench.config(&[]);
    config.name = "a,b".into();
    refused(config, &["name"]);
    let long = format!("lcow.bootparameters={}", "x".repeat(3000));
    refused(bench.config(&[&long]), &["lcow.bootparameters"]);
    refused(
        bench.config(&["lcow.bootparameters=a\nb"]),
        &["lcow.bootparameters"],
    );
}
