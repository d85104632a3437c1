//! The names of the Go package v0.3.5: each is in the book's table, found by rustdoc, and has a counterpart
//! that exists.

use std::fs;
use std::path::Path;

use opengcs::{BootMode, Config, Options, RequestedMode, UtilityVm, layer};

/// What the Go package exports: `documented` as rustdoc finds it, and as the table has it.
const GO: &[&str] = &[
    "ModeActualError",
    "ModeActualVhdx",
    "ModeActualKernelInitrd",
    "ModeRequestAuto",
    "ModeRequestVhdx",
    "ModeRequestKernelInitrd",
    "DefaultVhdxSizeGB",
    "CopyFile",
    "LayerVhdDetails",
    "ParseOptions",
    "Config",
    "Config.Options",
    "Config.Name",
    "Config.RequestedMode",
    "Config.ActualMode",
    "Config.UvmTimeoutSeconds",
    "Config.Uvm",
    "Config.MappedVirtualDisks",
    "Config.CreateExt4Vhdx",
    "Config.DebugGCS",
    "Config.GenerateDefault",
    "Config.HotAddVhd",
    "Config.HotRemoveVhd",
    "Config.RunProcess",
    "Config.StartUtilityVM",
    "Config.TarToVhd",
    "Config.Validate",
    "Config.VhdToTar",
    "Mode",
    "Options",
    "Options.KirdPath",
    "Options.KernelFile",
    "Options.InitrdFile",
    "Options.Vhdx",
    "Options.TimeoutSeconds",
    "Options.BootParameters",
];

/// Those that Rust has under the very same name.
const SAME: &[&str] = &["Config", "Config.Name", "Options"];

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap()
}

/// The rows of the tables in the part about the Go package: the Go name and all code in the second column.
fn table() -> Vec<(String, Vec<String>)> {
    let page = read("docs/coming-from-go.md");
    let part = page.split("## From hcsshim").next().unwrap();
    let code = |cell: &str| -> Vec<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .filter(|code| !code.contains('/'))
            .map(str::to_owned)
            .collect()
    };
    part.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let mut cells = line.split('|').skip(1);
            let go = code(cells.next().unwrap());
            let mut rust = code(cells.next().unwrap());
            rust.extend(code(cells.next().unwrap_or_default()));
            (go[0].clone(), rust)
        })
        .collect()
}

#[test]
fn every_go_name_is_in_the_table_once() {
    let mut listed: Vec<String> = table().into_iter().map(|(go, _)| go).collect();
    let mut wanted: Vec<String> = GO.iter().map(|name| (*name).to_owned()).collect();
    listed.sort();
    wanted.sort();
    assert_eq!(listed, wanted);
}

#[test]
fn every_go_name_is_found_by_rustdoc() {
    let mut sources = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    for name in GO.iter().filter(|name| !SAME.contains(name)) {
        let last = name.rsplit('.').next().unwrap();
        assert!(
            sources.contains(&format!("doc(alias = \"{last}\")")),
            "{name}"
        );
    }
}

/// The names are in this file's own code below, so that a name which goes does not compile.
#[test]
fn every_counterpart_is_used_here() {
    let code = include_str!("names.rs");
    let (_, code) = code.split_once("fn counterparts").unwrap();
    for (go, names) in table() {
        assert!(!names.is_empty(), "{go} has no counterpart");
        for name in names {
            let last = name.rsplit("::").next().unwrap();
            let used = code
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == last);
            assert!(used, "{go}: {name} is not used here");
        }
    }
}

/// Never run: that it compiles is the proof.
#[expect(dead_code, reason = "it only has to compile")]
async fn counterparts(vm: UtilityVm, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let _ = opengcs::copy_file(file, file, true)?;
    let _ = opengcs::layer_vhd_details(file)?;
    opengcs::create_ext4_vhdx(file, opengcs::DEFAULT_VHDX_SIZE_GB, None)?;
    let _ = opengcs::tar_to_vhd(file, std::io::empty())?;
    let _ = opengcs::vhd_to_tar(file, true, None)?;
    let _ = layer::create_scratch(file, &layer::ScratchOptions::default())?;

    let options = Options::parse(["lcow.timeout=1"])?;
    let Options {
        kird_path: _,
        kernel_file: _,
        initrd_file: _,
        vhdx: _,
        timeout: _,
        boot_parameters: _,
        warnings: _,
    } = &options;
    let mut config = Config::generate_default(["lcow.timeout=1"])?;
    let _: BootMode = config.validate()?;
    let _: Option<BootMode> = None.or(config.boot_mode);
    for mode in [
        RequestedMode::Auto,
        RequestedMode::Vhdx,
        RequestedMode::KernelInitrd,
    ] {
        config.requested_mode = mode;
    }
    let _ = [BootMode::Vhdx, BootMode::KernelInitrd];
    let Config {
        options: _,
        name: _,
        uvm_timeout: _,
        mapped_virtual_disks: _,
        ..
    } = &config;
    let _: Option<std::time::Duration> = Some(config.uvm_timeout);

    let _: UtilityVm = UtilityVm::start(config).await?;
    vm.run_process("true").await?;
    let nothing = tokio::io::empty();
    vm.run_process_with("true", nothing, tokio::io::sink(), tokio::io::sink())
        .await?;
    vm.hot_add_vhd(file, "/mnt", true, true).await?;
    vm.hot_add(opengcs::HotAdd::new(file)).await?;
    vm.hot_remove_vhd(file).await?;
    vm.tar_to_vhd(file, tokio::io::empty()).await?;
    vm.vhd_to_tar(file, None, true, None).await?;
    let _ = vm.debug_gcs().await;
    let _ = vm.diagnostics();
    Ok(())
}
