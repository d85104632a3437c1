//! How a command line that makes no sense is told: in the form of every failure, whatever its parser says.

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::Failure;

/// Conversions of one file into another, whose result people name as they would with `cp`.
const CONVERSIONS: [&str; 2] = ["opengcs tar2vhd", "opengcs vhd2tar"];

/// What is told of a command line that its parser refused.
pub(crate) fn failure(error: &Error) -> Failure {
    let command = command(error);
    let help = format!("`{command} --help` tells what it takes");
    let missing = matches!(
        error.kind(),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if missing {
        return Failure::usage(format!("{command} needs a command"))
            .hint(format!("`{command} --help` lists them"));
    }
    if let Some(word) = word_too_many(error)
        && CONVERSIONS.contains(&command.as_str())
    {
        let written = std::env::args_os().any(|word| {
            let word = word.to_string_lossy();
            word.starts_with("-o") || word.starts_with("--output")
        });
        let hint = match written {
            true => help,
            false => format!("what is written is named with -o: -o {word}"),
        };
        return Failure::usage(format!("one word too many: {word}")).hint(hint);
    }
    let text = error.to_string();
    let mut parts = text.split("\n\n");
    let said = parts.next().unwrap_or_default();
    let line = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(names))) => {
            format!("missing: {}", names.join(", "))
        }
        (ErrorKind::InvalidSubcommand, _) => match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(word)) => format!("{command} has no command {word:?}"),
            _ => "there is no such command".to_owned(),
        },
        _ => joined(said.trim_start_matches("error: ")),
    };
    let tip = parts.next().filter(|part| part.starts_with("  tip: "));
    let hint = match tip {
        Some(tip) => joined(&tip.replace("  tip: ", "")),
        None if error.kind() == ErrorKind::ArgumentConflict
            && CONVERSIONS.contains(&command.as_str())
            && said.contains("--input") =>
        {
            "-i and a bare word both name what is read; -o names what is written".to_owned()
        }
        None if error.kind() == ErrorKind::InvalidSubcommand => {
            format!("`{command} --help` lists the commands")
        }
        None => help,
    };
    Failure::usage(line).hint(hint)
}

/// A word that is no option and for which there is no place.
fn word_too_many(error: &Error) -> Option<&str> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(word) if !word.starts_with('-') => Some(word),
        _ => None,
    }
}

/// The command that was meant, by how its parser says that it is used, else by the words that were given.
fn command(error: &Error) -> String {
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    let mut words: Vec<String> = usage
        .split_whitespace()
        .skip_while(|word| *word != "opengcs")
        .take_while(|word| !word.starts_with(['[', '<', '-', '(']))
        .map(str::to_owned)
        .collect();
    if words.is_empty() {
        words.push("opengcs".to_owned());
        words.extend(given(std::env::args().skip(1)));
    }
    words.join(" ")
}

/// The words among these that name a command and those below it.
fn given(words: impl Iterator<Item = String>) -> Vec<String> {
    let whole = <crate::arguments::Arguments as clap::CommandFactory>::command();
    let mut below = &whole;
    let mut names = Vec::new();
    for word in words.take_while(|word| word != "--") {
        if let Some(found) = below.find_subcommand(&word) {
            names.push(found.get_name().to_owned());
            below = found;
        }
    }
    names
}

/// The lines of a text as one.
fn joined(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for part in text.lines().map(str::trim).filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            let between = line.ends_with(':') || part.starts_with('[');
            line.push_str(if between { " " } else { ", " });
        }
        line.push_str(part);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_one() {
        assert_eq!(joined("a\n  [b, c]\n"), "a [b, c]");
        assert_eq!(joined("not with:\n  -a\n  -b"), "not with: -a, -b");
    }

    #[test]
    fn commands_are_found_among_the_words() {
        let given = |text: &str| given(text.split(' ').map(str::to_owned));
        assert_eq!(given("--log-format json vm start a"), ["vm", "start"]);
        assert_eq!(given("run --memory 1K -- vm"), ["run"]);
        assert!(given("-q").is_empty());
    }
}
