//! `opengcs tar2vhd --plan`: how what would be made is shown, and what is the matter with the tar.

use std::collections::BTreeMap;

use anyhow::Result;
use opengcs::layer::{Compression, Plan, PlannedImage, Problem, ProblemKind, Severity};
use serde::Serialize;

use crate::output;
use crate::report;
use crate::size::Size;

/// How many problems of one kind are shown in words; the rest is counted.
const SHOWN: usize = 10;

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Planned<'a> {
    format: &'a str,
    image: Option<PlannedImage>,
    refusal: Option<String>,
    is_whole: bool,
    compression: Option<Compression>,
    entries: u64,
    tar_bytes: u64,
    largest_file: Option<File>,
    entries_with_attributes: u64,
    attribute_bytes: u64,
    problems: Vec<&'a Problem>,
    problem_counts: &'a BTreeMap<ProblemKind, u64>,
}

#[derive(Debug, Serialize)]
struct File {
    path: String,
    size: u64,
}

/// Prints a plan. It is the result that was asked for, so `--quiet` does not keep it back.
pub(super) fn show(plan: &Plan, format: &str, json: bool) -> Result<()> {
    let largest_file = plan.largest_file.as_ref().map(|(path, size)| File {
        path: String::from_utf8_lossy(path).into_owned(),
        size: *size,
    });
    if json {
        return output::json(&Planned {
            format,
            image: plan.image,
            refusal: plan.refusal.as_ref().map(ToString::to_string),
            is_whole: plan.is_whole,
            compression: plan.compression,
            entries: plan.entries,
            tar_bytes: plan.tar_bytes,
            largest_file,
            entries_with_attributes: plan.entries_with_attributes,
            attribute_bytes: plan.attribute_bytes,
            problems: plan.problems.iter().collect(),
            problem_counts: plan.problems.counts(),
        });
    }
    let mut table = report::table(&[]);
    let mut add = |name: &str, text: String| {
        let text: String = text
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        table.add_row([name.to_owned(), text]);
    };
    match &plan.image {
        Some(image) => {
            add(
                "image",
                format!("{format} of {} ({} bytes)", Size(image.size), image.size),
            );
            add(
                "file system",
                format!(
                    "ext4 of {}, {} free",
                    Size(image.filesystem_size),
                    Size(image.free)
                ),
            );
            add(
                "inodes",
                format!("{} used, {} free", image.inodes, image.free_inodes),
            );
        }
        None => add("image", "none: the tar would be refused".to_owned()),
    }
    if let Some(error) = &plan.refusal {
        add("refusal", error.to_string());
    }
    let kind = plan
        .compression
        .map_or_else(|| "unreadable".to_owned(), |kind| kind.to_string());
    let end = if plan.is_whole {
        ""
    } else {
        ", not read to its end"
    };
    add(
        "tar",
        format!(
            "{kind}, {} with {} entries{end}",
            Size(plan.tar_bytes),
            plan.entries
        ),
    );
    if let Some(file) = &largest_file {
        add(
            "largest file",
            format!("{}, {}", file.path, Size(file.size)),
        );
    }
    add("attributes", attributes(plan));
    add("problems", summary(plan));
    report::print_table(&table)?;
    for severity in [Severity::Refused, Severity::Changed, Severity::Noted] {
        show_problems(plan, severity)?;
    }
    Ok(())
}

fn attributes(plan: &Plan) -> String {
    let mut text = format!(
        "{} in {} entries",
        Size(plan.attribute_bytes),
        plan.entries_with_attributes
    );
    if let Some(image) = &plan.image
        && image.attribute_blocks > 0
    {
        text = format!(
            "{text}; {} blocks for what does not fit into inodes, {} values in inodes of their own",
            image.attribute_blocks, image.attribute_inodes
        );
    }
    text
}

fn summary(plan: &Plan) -> String {
    let of = |severity: Severity| -> u64 {
        let counts = plan.problems.counts().iter();
        counts
            .filter(|(kind, _)| kind.severity() == severity)
            .map(|(_, count)| count)
            .sum()
    };
    let parts: Vec<String> = [
        (of(Severity::Refused), "refused"),
        (of(Severity::Changed), "with a warning"),
        (of(Severity::Noted), "noted"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

fn show_problems(plan: &Plan, severity: Severity) -> Result<()> {
    let kinds = plan.problems.counts().iter();
    for (kind, count) in kinds.filter(|(kind, _)| kind.severity() == severity) {
        output::print(format_args!("\n{kind}: {}", kind.done()))?;
        let mut shown = 0;
        let of_kind = |problem: &&Problem| problem.kind == *kind;
        for problem in plan.problems.iter().filter(of_kind).take(SHOWN) {
            output::print(format_args!("  {problem}"))?;
            shown += 1;
        }
        let rest = count.saturating_sub(shown);
        if rest > 0 {
            output::print(format_args!("  and {rest} more"))?;
        }
    }
    Ok(())
}
