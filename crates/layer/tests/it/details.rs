//! Layer folders: which disk file is found in them.

use std::fs;

use opengcs_layer::{ErrorKind, layer_vhd_details};

#[test]
fn layer_comes_before_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    let error = layer_vhd_details(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(dir.path().to_str().unwrap()));
    fs::write(dir.path().join("sandbox.vhdx"), b"12345").unwrap();
    let found = layer_vhd_details(dir.path()).unwrap();
    assert!(found.is_sandbox && found.size == 5);
    assert_eq!(found.path, dir.path().join("sandbox.vhdx"));
    fs::write(dir.path().join("layer.vhd"), b"123").unwrap();
    let found = layer_vhd_details(dir.path()).unwrap();
    assert!(!found.is_sandbox && found.size == 3);
}

#[test]
fn missing_folder_and_file_are_errors_that_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    let error = layer_vhd_details(&none).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("none"));
    fs::write(&none, b"").unwrap();
    let error = layer_vhd_details(&none).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    fs::create_dir_all(dir.path().join("layer.vhd")).unwrap();
    let error = layer_vhd_details(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
