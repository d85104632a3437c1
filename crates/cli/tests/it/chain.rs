//! Differencing disks: read with the parents beside them, or in a folder that is named.

use std::collections::BTreeMap;
use std::fs;

use opengcs_vhd::testing::Child;
use opengcs_vhd::{Disk, Storage as _};

use crate::fixture::Place;

/// Makes `name` a child of `layer.vhd` without a change.
fn with_child(place: &Place, name: &str, path: &str) {
    let file = fs::File::open(place.path("layer.vhd")).unwrap();
    let parent = Disk::describe(file).unwrap();
    let child = Child {
        size: parent.virtual_size,
        id: "0b7a9e5c-4d0e-4a55-9d54-0d0e0c8f3c11".parse().unwrap(),
        parent: parent.content_id.unwrap(),
        paths: &[("W2ru", path)],
        block_size: 2 << 20,
        sectors: BTreeMap::new(),
    };
    let file = child.vhd();
    let length = usize::try_from(file.length().unwrap()).unwrap();
    fs::write(place.path(name), file.bytes(0, length)).unwrap();
}

#[test]
fn child_is_converted_and_described_with_its_parent() {
    let place = Place::new().with_layer();
    with_child(&place, "child.vhd", r".\layer.vhd");
    place.ok(&["vhd2tar", "layer.vhd", "-o", "parent.tar"]);
    place.ok(&["vhd2tar", "child.vhd", "-o", "child.tar"]);
    assert!(
        fs::read(place.path("child.tar")).unwrap() == fs::read(place.path("parent.tar")).unwrap()
    );
    let text = place.ok(&["inspect", "child.vhd"]);
    for word in ["dynamic vhd", "layer.vhd", "ext4"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
}

#[test]
fn parent_elsewhere_needs_its_folder_named() {
    let place = Place::new().with_layer();
    fs::create_dir(place.path("below")).unwrap();
    with_child(&place, "below/child.vhd", r"..\layer.vhd");
    let arguments = ["vhd2tar", "below/child.vhd", "-o", "child.tar"];
    place.fails(&arguments, 1, &["child.vhd", "layer.vhd", "folder"]);
    place.ok(&[&arguments[..], &["--parents", "."]].concat());
    let found = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&place.ok(arguments)).unwrap()
    };
    let alone = found(&["inspect", "below/child.vhd", "--json"]);
    assert!(alone["problem"].is_string());
    assert_eq!(alone["disk"]["parent"]["paths"][0], r"..\layer.vhd");
    let whole = found(&["inspect", "below/child.vhd", "--json", "--parents", "."]);
    assert!(whole["problem"].is_null());
    assert_eq!(whole["disk"]["chain"].as_array().unwrap().len(), 1);
}
