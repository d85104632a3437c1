//! What a newcomer reads.

use crate::fixture::Place;

const COMMANDS: &[&[&str]] = &[
    &["tar2vhd"],
    &["vhd2tar"],
    &["squash"],
    &["scratch"],
    &["inspect"],
    &["verify"],
    &["reclaim"],
    &["run"],
    &["vm", "start"],
    &["vm", "stop"],
    &["vm", "ls"],
    &["vm", "inspect"],
    &["vm", "logs"],
    &["vm", "stats"],
    &["exec"],
    &["disk", "add"],
    &["disk", "rm"],
    &["disk", "ls"],
    &["debug"],
    &["doctor"],
    &["vm"],
    &["disk"],
    &["kernel"],
    &["initrd"],
    &["uvm"],
    &["kernel", "install"],
    &["kernel", "ls"],
    &["initrd", "build"],
    &["uvm", "build"],
    &["completions"],
    &["man"],
];

#[test]
fn every_command_explains_itself_with_an_example() {
    let place = Place::new();
    let whole = place.ok(&["--help"]);
    for words in COMMANDS {
        assert!(whole.contains(words[0]), "{whole}");
        let help = place.ok(&[words, &["--help"][..]].concat());
        let name = format!("opengcs {}", words.join(" "));
        let examples = help
            .split_once("Examples:\n")
            .unwrap_or_else(|| panic!("{help}"))
            .1;
        assert!(examples.contains(&name), "{help}");
        assert!(help.contains(&format!("Usage: {name}")), "{help}");
        assert!(!help.trim_start().starts_with("Usage"), "{help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{name}: {line}");
        }
    }
    for code in [
        "0 ",
        "1 ",
        "2 ",
        "125 ",
        "126, 127 ",
        "129, 130, 143 ",
        "141 ",
    ] {
        let line = whole.lines().any(|line| line.trim().starts_with(code));
        assert!(line, "{code}: {whole}");
    }
    for line in ["Examples:", "Exit codes:", "20G is 20 × 1024³ bytes"] {
        assert!(whole.contains(line), "{whole}");
    }
}

#[test]
fn common_options_come_last_and_before_or_after_the_command() {
    let place = Place::new().with_layer();
    for words in COMMANDS {
        let help = place.ok(&[words, &["--help"][..]].concat());
        let (own, common) = help.split_once("\nCommon options:\n").unwrap();
        for option in ["--json", "--verbose", "--quiet", "--log-format"] {
            assert!(common.contains(option), "{words:?}: {help}");
            assert!(!own.contains(&format!("  {option}")), "{words:?}: {help}");
        }
    }
    let after = place.ok(&["inspect", "layer.vhd", "--json"]);
    assert!(after.starts_with('{'), "{after}");
    assert_eq!(place.ok(&["--json", "inspect", "layer.vhd"]), after);
    // What is text for other programs is not dressed up, and what a program is told is its own.
    for arguments in [&["--json", "man"][..], &["completions", "bash", "--json"]] {
        let output = place.opengcs(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let event: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(event["event"], "error");
    }
    place.fails(&["run", "--", "true", "--json"], 125, &["kernel"]);
}

#[test]
fn sizes_have_their_units_explained_where_they_are_taken() {
    let place = Place::new();
    for command in ["tar2vhd", "scratch"] {
        let help = place.ok(&[command, "--help"]);
        assert!(help.contains("binary units"), "{help}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let place = Place::new();
    for arguments in [
        &[][..],
        &["nonsense"],
        &["tar2vhd"],
        &["tar2vhd", "-o", "x", "--format", "qcow2"],
        &["tar2vhd", "-o", "x", "--size", "20GB"],
        &["tar2vhd", "-o", "x", "--uuid", "1234"],
        &["vhd2tar"],
        &["vhd2tar", "a", "--gzip", "--zstd"],
        &["scratch"],
        &["scratch", "x", "--size", "many"],
        &["inspect"],
        &["run"],
        &["run", "--disk", "layer.vhd", "--", "ls"],
        &["run", "--memory", "512", "--", "ls"],
        &["run", "--nonsense", "--", "ls"],
        &["vm"],
        &["vm", "start"],
        &["vm", "start", "../a"],
        &["vm", "stop", ".a"],
        &["vm", "stats", "a", "--every", "2"],
        &["exec"],
        &["exec", "a"],
        &["exec", "-d", "-i", "a", "--", "true"],
        &["exec", "a", "--detach-keys", "ctrl-1", "--", "true"],
        &["disk"],
        &["disk", "add", "a"],
        &["disk", "add", "a", "x", "--no-mount", "--fs", "vfat"],
        &["disk", "rm", "a"],
        &["debug"],
        &["kernel"],
        &["kernel", "install", "--modules", "x"],
    ] {
        let output = place.opengcs(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(place.names().len(), 2);
}

#[test]
fn completions_and_pages_come_from_the_same_source() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.ok(&["completions", shell]).contains("tar2vhd"));
    }
    assert!(!place.ok(&["completions", "bash"]).contains("__monitor"));
    let whole = place.ok(&["man"]);
    assert!(whole.contains(".TH opengcs 1"));
    for words in [
        ".SH ENVIRONMENT",
        "OPENGCS_LOG",
        "NO_COLOR",
        ".SH \"EXIT STATUS\"",
        ".SH EXAMPLES",
    ] {
        assert!(whole.contains(words), "{words}: {whole}");
    }
    let start = place.ok(&["man", "vm", "start"]);
    for words in [
        concat!(
            ".TH opengcs-vm-start 1  \"opengcs ",
            env!("CARGO_PKG_VERSION"),
            "\" opengcs"
        ),
        "\\fBopengcs vm start\\fR [OPTIONS] <NAME>",
        ".SH EXAMPLES\n.nf\nopengcs vm start build\n",
        ".SH \"SEE ALSO\"\n\\fBopengcs\\fR(1)",
    ] {
        assert!(start.contains(words), "{words}: {start}");
    }
    assert!(place.ok(&["man", "kernel", "install"]).contains("opengcs"));
    place.fails(&["man", "nonsense"], 2, &["nonsense"]);
    place.ok(&["man", "--folder", "."]);
    for page in ["opengcs.1", "opengcs-tar2vhd.1", "opengcs-vm-start.1"] {
        assert!(place.path(page).is_file());
    }
    for none in [
        "opengcs-help.1",
        "opengcs-vm-help.1",
        "opengcs-vm-monitor.1",
    ] {
        assert!(!place.path(none).exists());
    }
}

#[test]
fn help_is_a_command_too() {
    let place = Place::new();
    for (words, as_option) in [
        (&["help"][..], &["--help"][..]),
        (&["help", "tar2vhd"], &["tar2vhd", "--help"]),
        (&["vm", "help"], &["vm", "--help"]),
        (&["help", "vm", "start"], &["vm", "start", "--help"]),
    ] {
        assert_eq!(place.ok(words), place.ok(as_option), "{words:?}");
    }
    // A group alone is a question, too, and no success.
    let output = place.opengcs(["vm"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(crate::fixture::said(&output).contains("Commands:"));
}

#[test]
fn lists_go_by_other_names_too() {
    let place = Place::new();
    let same = place.ok(&["kernel", "ls", "--help"]);
    assert_eq!(place.ok(&["kernel", "list", "--help"]), same);
    for words in [["vm", "list"], ["vm", "ps"], ["disk", "list"]] {
        let help = place.ok(&[words[0], words[1], "--help"]);
        assert!(
            help.contains(&format!("Usage: opengcs {} ls", words[0])),
            "{help}"
        );
    }
    assert!(!place.ok(&["vm", "--help"]).contains("  ps"));
}
