//! Where the seed looked on Windows, and where is looked without the variables that it took for granted.

use std::fs;
use std::path::{Path, PathBuf};

use opengcs::{ErrorKind, Options, layer_vhd_details};

use crate::sys;

/// The only test that changes variables; no other here reads these.
#[test]
fn options_have_their_folders_with_program_files_and_without() {
    for (program_files, drive, folder) in [
        (
            Some(r"D:\Programs"),
            Some("C:"),
            r"D:\Programs\Linux Containers",
        ),
        (None, Some("E:"), r"E:\Program Files\Linux Containers"),
        (None, None, r"C:\Program Files\Linux Containers"),
    ] {
        sys::set("OPENGCS_DATA_DIR", None);
        sys::set("ProgramFiles", program_files);
        sys::set("SystemDrive", drive);
        let folder = Path::new(folder);
        let options = Options::parse([] as [&str; 0]).unwrap();
        assert_eq!(options.kird_path, folder);
        assert_eq!(options.kernel_path(), folder.join("bootx64.efi"));
        assert_eq!(options.initrd_path(), folder.join("initrd.img"));
        assert_eq!(options.vhdx, folder.join("uvm.vhdx"));
        let options = Options::parse([r"LCOW.KirdPath=F:\guest", "lcow.kernel=k"]).unwrap();
        assert_eq!(options.kernel_path(), Path::new(r"F:\guest\k"));
        assert_eq!(options.vhdx, Path::new(r"F:\guest\uvm.vhdx"));
        let options = Options::parse([r"lcow.vhdx=F:\v.vhdx"]).unwrap();
        assert_eq!(options.vhdx, Path::new(r"F:\v.vhdx"));
        assert_eq!(options.kird_path, folder);
        layers_are_found();
    }
}

fn layers_are_found() {
    let place = tempfile::tempdir().unwrap();
    let mut deep = place.path().join("layers");
    while deep.as_os_str().len() < 400 {
        deep.push("a folder whose name is long enough to get somewhere");
    }
    for folder in [place.path().join("a layer"), deep] {
        fs::create_dir_all(&folder).unwrap();
        let text = folder.to_str().unwrap();
        let ways: Vec<PathBuf> = [
            text.to_owned(),
            text.replace('\\', "/"),
            format!(r"{text}\"),
            format!(r"\\?\{text}"),
            text.to_uppercase(),
        ]
        .map(PathBuf::from)
        .into();
        let found = |file: &str, is_sandbox: bool| {
            for way in &ways {
                let details = layer_vhd_details(way).unwrap();
                assert_eq!(details.path, way.join(file));
                assert_eq!(details.is_sandbox, is_sandbox, "{way:?}");
                assert_eq!(details.size, fs::metadata(folder.join(file)).unwrap().len());
            }
        };
        for way in &ways {
            let error = layer_vhd_details(way).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            let report = error.report();
            assert!(report.contains(way.to_str().unwrap()), "{report}");
        }
        fs::write(folder.join("sandbox.vhdx"), b"12345").unwrap();
        found("sandbox.vhdx", true);
        fs::write(folder.join("layer.vhd"), b"123").unwrap();
        found("layer.vhd", false);
    }
}
