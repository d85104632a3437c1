//! The package for Debian: what dpkg wants to know, and how it is built.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::tree::{Tree, gzip, walk};
use super::{Programs, tool, write};
use crate::run;

/// Finishes the tree in `root`, whose `usr` has the programs, and builds the package of it.
pub(super) fn finish(
    root: &Path,
    programs: &Programs,
    third_parties: &str,
    time: u64,
    to: &Path,
) -> Result<()> {
    let documents = root.join("usr/share/doc/opengcs");
    let read = |name: &str| {
        fs::read_to_string(run::root().join(name)).with_context(|| format!("cannot read {name}"))
    };
    write(&documents.join("README.md"), read("README.md")?)?;
    write(&documents.join("README.Debian"), README)?;
    write(&documents.join("THIRD-PARTY.txt"), third_parties)?;
    write(
        &documents.join("copyright"),
        copyright(&read("LICENSE-MIT")?),
    )?;
    write(&documents.join("changelog"), read("CHANGELOG.md")?)?;
    write(&documents.join("changelog.Debian"), changelog(time)?)?;
    for name in ["THIRD-PARTY.txt", "changelog", "changelog.Debian"] {
        gzip(&documents.join(name))?;
    }

    let needs = tool("objdump").arg("-p").arg(&programs.opengcs).output();
    let needs = needs.context("cannot run objdump, of the package binutils")?;
    let depends = depends(&String::from_utf8_lossy(&needs.stdout))?;
    let (mut sums, mut bytes) = (String::new(), 0);
    for path in walk(&root.join("usr"))? {
        if path.is_file() {
            bytes += fs::metadata(&path)?.len();
            let sum = run::output(tool("md5sum").arg(&path))?;
            let sum = sum.split_whitespace().next().unwrap_or_default();
            sums.push_str(&format!("{sum}  {}\n", path.strip_prefix(root)?.display()));
        }
    }
    write(&root.join("DEBIAN/md5sums"), sums)?;
    write(&root.join("DEBIAN/control"), control(&depends, bytes))?;
    Tree::new(root).seal(time)?;
    run::output(
        tool("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .args([root, to])
            .env("SOURCE_DATE_EPOCH", time.to_string()),
    )
    .map(drop)
}

/// The libraries that a program asks for, as packages; `private` is what `objdump -p` prints of it.
fn depends(private: &str) -> Result<String> {
    let mut depends = Vec::new();
    let libraries = private
        .lines()
        .filter_map(|line| line.trim().strip_prefix("NEEDED"))
        .map(str::trim);
    for library in libraries {
        match library {
            "libgcc_s.so.1" => depends.push("libgcc-s1 (>= 4.2)".to_owned()),
            "libc.so.6" | "libm.so.6" | "ld-linux-x86-64.so.2" => {}
            other => bail!("opengcs is linked with {other}, whose package is not known here"),
        }
    }
    let newest = private
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("GLIBC_2."))
        .filter_map(|minor| minor.split('.').next()?.parse::<u32>().ok())
        .max()
        .context("opengcs asks for no version of glibc: it is no program for Debian")?;
    depends.push(format!("libc6 (>= 2.{newest})"));
    depends.sort();
    Ok(depends.join(", "))
}

fn control(depends: &str, bytes: u64) -> String {
    format!(
        "Package: opengcs\n\
         Version: {version}-1\n\
         Architecture: amd64\n\
         Maintainer: {maintainer}\n\
         Installed-Size: {size}\n\
         Depends: {depends}\n\
         Recommends: qemu-system-x86, busybox-static\n\
         Suggests: ovmf, crun, e2fsprogs\n\
         Section: admin\n\
         Priority: optional\n\
         Description: container layers as ext4 disks, and small Linux VMs that use them\n \
         opengcs turns container layers (tar streams) into ext4 disk files and back,\n \
         without root, a loop device or a VM; makes scratch disks; and runs Linux\n \
         programs in a small VM that takes such disks while it runs.\n \
         .\n \
         Conversions need nothing else. VMs need QEMU, and a kernel and an initrd that\n \
         \"opengcs kernel install\" and \"opengcs initrd build\" prepare for each user.\n",
        version = env!("CARGO_PKG_VERSION"),
        maintainer = maintainer(),
        size = bytes.div_ceil(1024),
    )
}

/// Who answers for the package, by the variables that Debian's own tools read.
fn maintainer() -> String {
    match (std::env::var("DEBFULLNAME"), std::env::var("DEBEMAIL")) {
        (Ok(name), Ok(mail)) => format!("{name} <{mail}>"),
        _ => "The opengcs authors <opengcs@example.invalid>".to_owned(),
    }
}

fn changelog(time: u64) -> Result<String> {
    let date = run::output(tool("date").args(["--utc", "-R", "-d", &format!("@{time}")]))?;
    Ok(format!(
        "opengcs ({}-1) unstable; urgency=medium\n\n  * See changelog.gz for what has changed.\n\n -- {}  {date}",
        env!("CARGO_PKG_VERSION"),
        maintainer(),
    ))
}

/// In the form that Debian's policy asks for; Apache's text is on every Debian.
fn copyright(mit: &str) -> String {
    let (holders, terms) = mit.split_once("\n\nPermission").unwrap_or(("", mit));
    let holders: Vec<&str> = holders
        .lines()
        .filter_map(|line| line.strip_prefix("Copyright "))
        .collect();
    let terms = format!("Permission{terms}");
    let terms: Vec<String> = terms
        .trim()
        .lines()
        .map(|line| match line.trim() {
            "" => " .".to_owned(),
            line => format!(" {line}"),
        })
        .collect();
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: opengcs\n\
         Comment: The crates that are linked in are listed with their licences in\n \
         /usr/share/doc/opengcs/THIRD-PARTY.txt.gz.\n\n\
         Files: *\n\
         Copyright: {}\n\
         License: Expat or Apache-2.0\n\n\
         License: Expat\n{}\n\n\
         License: Apache-2.0\n \
         The text of the Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0.\n",
        holders.join("\n           "),
        terms.join("\n"),
    )
}

const README: &str = "\
opengcs for Debian
------------------

Conversions (tar2vhd, vhd2tar, scratch, inspect) work at once. Before the first VM each user runs

    opengcs kernel install
    opengcs initrd build
    opengcs doctor

which downloads Debian's cloud kernel with apt, unpacks it in ~/.local/share/opengcs (nothing is
installed and root is not needed) and builds the initrd around the agent, /usr/lib/opengcs/gcs.
";

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: &str = "
  NEEDED               libgcc_s.so.1
  NEEDED               libc.so.6
  NEEDED               ld-linux-x86-64.so.2
Version References:
  required from libc.so.6:
    0x06969194 0x00 03 GLIBC_2.14
    0x069691b4 0x00 04 GLIBC_2.34
    0x09691a75 0x00 02 GLIBC_2.2.5
";

    #[test]
    fn libraries_become_packages_with_the_newest_version_asked_for() {
        assert_eq!(
            depends(PRIVATE).unwrap(),
            "libc6 (>= 2.34), libgcc-s1 (>= 4.2)"
        );
        let unknown = format!("{PRIVATE}  NEEDED libssl.so.3\n");
        assert!(
            depends(&unknown)
                .unwrap_err()
                .to_string()
                .contains("libssl")
        );
        assert!(depends("").is_err());
    }

    #[test]
    fn the_control_file_has_one_field_a_line_and_ends_with_its_description() {
        let text = control("libc6 (>= 2.34)", 4097);
        let fields: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with(' '))
            .map(|line| line.split(": ").next().unwrap())
            .collect();
        assert_eq!(fields.last(), Some(&"Description"));
        assert_eq!(fields.len(), 11, "{fields:?}");
        assert!(text.contains("Installed-Size: 5\n"), "{text}");
        assert!(text.lines().all(|line| line.len() < 81), "{text}");
    }

    #[test]
    fn the_licence_keeps_its_paragraphs() {
        let text = copyright("MIT License\n\nCopyright (c) 2026 A\n\nPermission is\n\ngranted\n");
        assert!(text.contains("Copyright: (c) 2026 A\n"), "{text}");
        assert!(
            text.contains("License: Expat\n Permission is\n .\n granted\n"),
            "{text}"
        );
    }
}
