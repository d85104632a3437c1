//! Paths as people write them on Windows, names that are none, and files that others have open.

use std::fs::{self, File, OpenOptions};
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::fixture::{Place, e2fsck, tar, tar_names};

/// `FILE_SHARE_READ`: others may read, and neither write nor rename.
const READERS_ONLY: u32 = 1;

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn open_for(path: &Path, access: &mut OpenOptions, shared: u32) -> File {
    access.share_mode(shared).open(path).unwrap()
}

#[test]
fn every_way_to_write_a_path_leads_to_the_file() {
    let place = Place::new().with_layer();
    let disk = fs::read(place.path("layer.vhd")).unwrap();
    let spaced = place.path(r"a folder\with spaces");
    fs::create_dir_all(&spaced).unwrap();
    let layer = tar();
    fs::write(spaced.join("the layer.tar"), &layer).unwrap();
    fs::write(spaced.join("ünï 🐧.tar"), &layer).unwrap();

    let absolute = text(&spaced);
    let (drive, rest) = absolute.split_at(2);
    assert!(drive.ends_with(':') && rest.starts_with('\\'), "{absolute}");
    for folder in [
        r"a folder\with spaces".to_owned(),
        r".\a folder\.\with spaces".to_owned(),
        r"a folder\..\a folder\with spaces".to_owned(),
        "a folder/with spaces".to_owned(),
        r"A Folder\WITH SPACES".to_owned(),
        absolute.clone(),
        absolute.replace('\\', "/"),
        format!("{}{rest}", drive.to_lowercase()),
        format!(r"\\?\{absolute}"),
        // Without a drive: from the root of the one that we are on.
        rest.to_owned(),
    ] {
        for name in ["the layer", "ünï 🐧"] {
            let (from, to) = (
                format!("{folder}\\{name}.tar"),
                format!("{folder}\\{name}.vhd"),
            );
            place.ok(&["tar2vhd", "-i", &from, "-o", &to]);
            assert!(
                fs::read(spaced.join(format!("{name}.vhd"))).unwrap() == disk,
                "{to}"
            );
            let back = format!("{folder}\\{name}.back");
            place.ok(&["vhd2tar", &to, "-o", &back]);
            assert!(!tar_names(&fs::read(spaced.join(format!("{name}.back"))).unwrap()).is_empty());
            fs::remove_file(spaced.join(format!("{name}.vhd"))).unwrap();
            fs::remove_file(spaced.join(format!("{name}.back"))).unwrap();
        }
    }
    // Nothing else was made on the way.
    assert_eq!(fs::read_dir(&spaced).unwrap().count(), 2);
}

#[test]
fn paths_longer_than_260_characters_are_paths() {
    let place = Place::new().with_layer();
    let disk = fs::read(place.path("layer.vhd")).unwrap();
    let mut deep = place.work();
    while deep.as_os_str().len() < 500 {
        deep.push("a folder whose name is long enough to get somewhere soon");
    }
    fs::create_dir_all(&deep).unwrap();
    let at = |name: &str| text(&deep.join(name));
    fs::copy(place.path("layer.tar"), deep.join("layer.tar")).unwrap();
    place.ok(&["tar2vhd", "-i", &at("layer.tar"), "-o", &at("layer.vhd")]);
    assert!(fs::read(deep.join("layer.vhd")).unwrap() == disk);
    // It is kept, and replaced when that is asked for.
    place.ok(&["tar2vhd", "-i", &at("layer.tar"), "-o", &at("layer.vhd")]);
    place.ok(&["vhd2tar", &at("layer.vhd"), "-o", &at("back.tar")]);
    place.ok(&["scratch", &at("sandbox.vhdx")]);
    place.ok(&["inspect", &at("sandbox.vhdx")]);
    let verbatim = format!(r"\\?\{}", at("verbatim.vhd"));
    place.ok(&["tar2vhd", "-i", &at("layer.tar"), "-o", &verbatim]);
    let mut names: Vec<_> = fs::read_dir(&deep)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "back.tar",
            "layer.tar",
            "layer.vhd",
            "sandbox.vhdx",
            "verbatim.vhd"
        ]
    );
}

#[test]
fn names_that_are_no_files_to_windows_are_told_in_one_line() {
    let place = Place::new().with_layer();
    let device = "windows has a device of that name";
    let cut = "windows cuts dots and spaces off the end of a name";
    let character = "windows takes no name with";
    for (name, why) in [
        ("NUL", device),
        ("nul.vhd", device),
        ("con.vhd", device),
        (r".\aux.tar.gz", device),
        ("COM1", device),
        ("lpt9.vhdx", device),
        ("x.vhd.", cut),
        ("x.vhd ", cut),
        ("layer.vhd:stream", character),
        ("what?.vhd", character),
        ("a\"b.vhd", character),
        (r"missing\con.vhd", device),
    ] {
        place.fails(&["tar2vhd", "-i", "layer.tar", "-o", name], 1, &[name, why]);
        place.fails(&["vhd2tar", "layer.vhd", "-o", name], 1, &[name, why]);
        place.fails(&["scratch", name], 1, &[name, why]);
    }
    // Without its dot it is the disk that is read.
    place.fails(
        &["vhd2tar", "layer.vhd", "-o", "layer.vhd."],
        2,
        &["over itself"],
    );
    for arguments in [
        ["tar2vhd", "-i", "NUL", "-o", "x.vhd"],
        ["vhd2tar", "-i", "con.vhd", "-o", "x.tar"],
    ] {
        place.fails(&arguments, 1, &[]);
    }
}

#[test]
fn a_target_that_another_program_has_open_stays_and_is_told() {
    let place = Place::new().with_layer();
    let kept = place.write("open.vhd", b"kept");
    let theirs = open_for(&kept, OpenOptions::new().read(true), READERS_ONLY);
    let arguments = ["tar2vhd", "-i", "layer.tar", "-o", "open.vhd"];
    let why = ["open.vhd", "another program has it open"];
    place.fails(&arguments, 1, &why);
    place.fails(&["vhd2tar", "layer.vhd", "-o", "open.vhd"], 1, &why);
    assert_eq!(fs::read(&kept).unwrap(), b"kept");
    drop(theirs);
    place.ok(&arguments);
    e2fsck(&kept);
}

#[test]
fn a_disk_that_another_program_writes_to_is_not_converted() {
    let place = Place::new().with_layer();
    let disk = place.path("layer.vhd");
    let writing = open_for(&disk, OpenOptions::new().read(true).write(true), 7);
    place.fails(&["vhd2tar", "layer.vhd", "-o", "x.tar"], 1, &["layer.vhd"]);
    // Looking at it harms nobody.
    place.ok(&["inspect", "layer.vhd"]);
    drop(writing);
    // A reader that keeps writers out does not keep out other readers.
    let reading = open_for(&disk, OpenOptions::new().read(true), READERS_ONLY);
    place.ok(&["vhd2tar", "layer.vhd", "-o", "x.tar"]);
    drop(reading);
}

#[test]
fn the_data_folder_is_found_without_its_variables() {
    let place = Place::new();
    let mut command = place.opengcs(["run", "--", "true"]);
    // Wine 8 sets the second anew for every program, so that no other value of it can be tried this way.
    for name in ["OPENGCS_DATA_DIR", "ProgramFiles", "SystemDrive"] {
        command.env_remove(name);
    }
    let folder = r"C:\Program Files\Linux Containers";
    place.fails_as(&mut command, 125, &[folder, "bootx64.efi"]);
    assert!(!Path::new(folder).exists());
}
