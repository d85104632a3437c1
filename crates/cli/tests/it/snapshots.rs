//! Help and tables, held to what they were: a change shows in the review of `tests/it/snapshots/`.
//!
//! `INSTA_UPDATE=always cargo test -p opengcs-cli --test it snapshots` writes them again, and those of new
//! commands.

use std::fs;

use crate::fixture::{Place, kernel};

/// Every command with its words, found in the help itself.
fn commands(place: &Place, above: &[String]) -> Vec<Vec<String>> {
    let help = place.ok(&words(above, "--help"));
    let Some((_, list)) = help.split_once("Commands:\n") else {
        return vec![above.to_vec()];
    };
    let mut all = vec![above.to_vec()];
    for line in list.lines().take_while(|line| !line.trim().is_empty()) {
        // What a long line of the list goes on with is further in.
        let Some(name) = line
            .strip_prefix("  ")
            .filter(|rest| !rest.starts_with(' '))
            .and_then(|rest| rest.split(' ').next())
        else {
            continue;
        };
        if name == "help" {
            continue;
        }
        let mut below = above.to_vec();
        below.push(name.to_owned());
        all.extend(commands(place, &below));
    }
    all
}

fn words<'a>(above: &'a [String], last: &'a str) -> Vec<&'a str> {
    above.iter().map(String::as_str).chain([last]).collect()
}

#[test]
#[cfg_attr(windows, ignore = "folders are named otherwise there")]
fn help_is_what_it_was() {
    let place = Place::new();
    let all = commands(&place, &[]);
    assert!(all.len() > 15, "{all:?}");
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for command in all {
            let help = place.ok(&words(&command, "--help"));
            let name = ["help".to_owned()]
                .into_iter()
                .chain(command)
                .collect::<Vec<_>>()
                .join("-");
            insta::assert_snapshot!(name, help);
        }
    });
}

#[test]
#[cfg_attr(windows, ignore = "folders are named otherwise there")]
fn tables_are_what_they_were() {
    let place = Place::new().with_layer();
    fs::create_dir_all(place.data().join("modules/6.1.0-old")).unwrap();
    fs::write(place.data().join("bootx64.efi"), kernel("6.9.1")).unwrap();
    place.ok(&["scratch", "box.vhdx", "--size", "20G"]);
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let data = place.data().display().to_string();
    settings.bind(|| {
        let table = place.ok(&["kernel", "ls"]).replace(&data, "DATA");
        insta::assert_snapshot!("table-kernel-ls", table);
        for (name, file) in [("layer", "layer.vhd"), ("scratch", "box.vhdx")] {
            let table = place.ok(&["inspect", file]);
            // How much a file takes is its file system's affair.
            let table: Vec<_> = table
                .lines()
                .filter(|line| !line.starts_with("on this disk"))
                .collect();
            insta::assert_snapshot!(format!("table-inspect-{name}"), table.join("\n"));
        }
    });
}
