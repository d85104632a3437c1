use super::*;
use crate::guest::bzimage::tests::fake_kernel;
use crate::guest::elf::tests::fake_module;

fn contents() -> Contents {
    Contents {
        release: "6.1.0-test".into(),
        agent: b"agent".to_vec(),
        busybox: Some(Busybox {
            program: b"busybox".to_vec(),
            applets: ["sh", "ls", "busybox", "vhd2tar", "../x", "ls"]
                .map(str::to_owned)
                .into(),
        }),
        modules: [
            "kernel/net/vsock.ko",
            "kernel/net/deep/virtio.ko",
            "kernel/hv/hv_sock.ko",
        ]
        .map(|path| GuestModule {
            name: path.into(),
            path: path.into(),
            first: path.ends_with("sock.ko"),
            qemu: !path.contains("hv"),
            hyperv: !path.contains("virtio"),
            content: path.into(),
        })
        .into(),
        files: [
            ("bin/crun", 0o755),
            ("lib64/ld.so", 0o755),
            ("usr/lib/x/libc.so", 0o644),
        ]
        .map(|(path, mode)| GuestFile {
            path: path.into(),
            mode,
            content: path.into(),
        })
        .into(),
    }
}

/// The entries of both archives.
fn unpack(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let second = bytes
        .windows(11)
        .position(|window| window == b"TRAILER!!!\0")
        .unwrap();
    let start = (second + 11).next_multiple_of(4);
    cpio::entries(bytes)
        .chain(cpio::entries(&bytes[start..]))
        .map(|entry| {
            (
                String::from_utf8(entry.name.to_vec()).unwrap(),
                entry.mode,
                entry.content.to_vec(),
            )
        })
        .collect()
}

#[test]
fn the_tree_is_as_the_agent_expects_it() {
    let bytes = write(&contents(), Compression::None, Vec::new()).unwrap();
    let entries = unpack(&bytes);
    let content = |name: &str| {
        entries
            .iter()
            .find(|entry| entry.0 == name)
            .map(|entry| String::from_utf8(entry.2.clone()).unwrap())
    };
    assert_eq!(content("init").as_deref(), Some("/bin/gcs"));
    assert_eq!(content("bin/gcs").as_deref(), Some("agent"));
    assert_eq!(content("bin/vhd2tar").as_deref(), Some("gcs"));
    assert_eq!(content("bin/sh").as_deref(), Some("busybox"));
    assert_eq!(
        content(LOAD_FILE).as_deref(),
        Some("/lib/modules/6.1.0-test/kernel/net/vsock.ko\n")
    );
    assert_eq!(
        content(LOAD_LATER_FILE).as_deref(),
        Some("/lib/modules/6.1.0-test/kernel/net/deep/virtio.ko\n")
    );
    assert_eq!(
        content(LOAD_HYPERV_FILE).as_deref(),
        Some(
            "/lib/modules/6.1.0-test/kernel/net/vsock.ko\n\
             /lib/modules/6.1.0-test/kernel/hv/hv_sock.ko\n"
        )
    );
    assert_eq!(content(LOAD_LATER_HYPERV_FILE).as_deref(), Some(""));
    let mut names: Vec<_> = entries.iter().map(|entry| entry.0.as_str()).collect();
    assert!(!names.iter().any(|name| name.contains("..")));
    // Every parent comes before its children.
    for (index, name) in names.iter().enumerate() {
        if let Some((parent, _)) = name.rsplit_once('/') {
            assert!(names[..index].contains(&parent), "{name} before {parent}");
        }
    }
    let before = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(before - names.len(), 1, "only etc may come twice");
}

#[test]
fn the_same_contents_give_the_same_bytes() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let once = write(&contents(), compression, Vec::new()).unwrap();
        assert_eq!(once, write(&contents(), compression, Vec::new()).unwrap());
    }
}

#[test]
fn the_release_is_read_back_whatever_the_compression() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("initrd.img");
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        write_file(&contents(), compression, &path).unwrap();
        assert_eq!(release_in(&path).unwrap().as_deref(), Some("6.1.0-test"));
    }
    fs::write(&path, b"\x1f\x8bsomebody else's").unwrap();
    assert_eq!(release_in(&path).unwrap(), None);
    fs::write(&path, b"").unwrap();
    assert!(
        release_in(&path)
            .unwrap_err()
            .to_string()
            .contains("initrd.img")
    );
}

#[test]
fn a_pair_that_does_not_belong_together_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (kernel, initrd) = (folder.path().join("k"), folder.path().join("i"));
    write_file(&contents(), Compression::None, &initrd).unwrap();
    fs::write(&kernel, fake_kernel("6.1.0-test")).unwrap();
    check_pair(&kernel, &initrd).unwrap();
    fs::write(&kernel, fake_kernel("6.2.0-test")).unwrap();
    let message = check_pair(&kernel, &initrd).unwrap_err().to_string();
    assert!(message.contains("6.2.0-test") && message.contains("6.1.0-test"));
}

fn static_program() -> Vec<u8> {
    let mut bytes = fake_module(b"");
    bytes[32..40].copy_from_slice(&0u64.to_le_bytes());
    bytes
}

#[test]
fn an_initrd_is_built_from_a_data_folder() {
    let data = tempfile::tempdir().unwrap();
    let modules = data.path().join("modules/6.1.0-test/kernel");
    fs::create_dir_all(&modules).unwrap();
    for name in REQUIRED_MODULES {
        fs::write(
            modules.join(format!("{name}.ko")),
            fake_module(b"depends=\0"),
        )
        .unwrap();
    }
    fs::write(
        data.path().join(DEFAULT_KERNEL_FILE),
        fake_kernel("6.1.0-test"),
    )
    .unwrap();
    fs::write(data.path().join("agent"), static_program()).unwrap();
    let mut options = InitrdOptions::new(data.path());
    options.agent = Some(data.path().join("agent"));
    options.without_busybox = true;
    let environment = Environment::fixed::<&str, &str>([]);
    let built = build(&options, &environment).unwrap();
    assert_eq!(built.release, "6.1.0-test");
    assert_eq!(built.modules, REQUIRED_MODULES);
    assert_eq!(built.size, fs::metadata(&built.path).unwrap().len());

    for name in HYPERV_MODULES {
        let file = modules.join(format!("{name}.ko"));
        fs::write(file, fake_module(b"depends=\0")).unwrap();
    }
    let built = build(&options, &environment).unwrap();
    let entries = unpack(&fs::read(&built.path).unwrap());
    let listed = |file: &str| -> Vec<String> {
        let entry = entries.iter().find(|entry| entry.0 == file).unwrap();
        let list = String::from_utf8(entry.2.clone()).unwrap();
        list.lines()
            .map(|line| line.rsplit('/').next().unwrap().replace(".ko", ""))
            .collect()
    };
    assert_eq!(
        listed(LOAD_FILE),
        ["virtio_pci", "vmw_vsock_virtio_transport"]
    );
    assert_eq!(listed(LOAD_HYPERV_FILE), ["hv_vmbus", "hv_sock"]);
    let later = ["hv_storvsc", "hv_utils", "sd_mod", "overlay", "ext4"];
    assert_eq!(listed(LOAD_LATER_HYPERV_FILE), later);

    options.extra_modules = vec!["no_such_module".into()];
    let error = build(&options, &environment).unwrap_err();
    assert!(error.to_string().contains("no_such_module"), "{error}");

    options.extra_modules.clear();
    fs::write(data.path().join("agent"), "#!/bin/sh").unwrap();
    let error = build(&options, &environment).unwrap_err();
    assert!(error.to_string().contains("agent"), "{error}");
    assert!(built.path.is_file());
}

#[test]
#[cfg(target_os = "linux")]
fn a_program_brings_its_loader_and_its_libraries() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("runc");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let files = runtime::gather(&program).unwrap();
    let has = |part: &str| files.iter().any(|file| file.path.contains(part));
    assert!(has("bin/runc") && has("ld-linux") && has("libc.so"));
    assert!(files.iter().all(|file| !file.path.starts_with('/')));
    for file in &files {
        let path = if file.path == "bin/runc" {
            program.clone()
        } else {
            Path::new("/").join(&file.path)
        };
        assert!(fs::read(path).unwrap() == file.content, "{}", file.path);
    }
    let error = runtime_path(Path::new("/bin/sh"), &Environment::process()).unwrap_err();
    assert!(error.to_string().contains("crun or runc"), "{error}");
}

#[test]
fn more_files_have_their_folders_before_them() {
    let bytes = write(&contents(), Compression::None, Vec::new()).unwrap();
    let entries = unpack(&bytes);
    let place = |name: &str| entries.iter().position(|entry| entry.0 == name).unwrap();
    for (folder, file) in [
        ("lib64", "lib64/ld.so"),
        ("usr/lib", "usr/lib/x"),
        ("usr/lib/x", "usr/lib/x/libc.so"),
    ] {
        assert!(place(folder) < place(file), "{folder}");
    }
    assert_eq!(entries.iter().filter(|entry| entry.0 == "bin").count(), 1);
    assert_eq!(entries[place("bin/crun")].1 & 0o777, 0o755);
}
