//! What may differ between two runs of one command.

/// Whether two outputs say the same, under the words of their block.
pub(super) fn same(words: &[String], left: &str, right: &str) -> bool {
    let numbers = words
        .iter()
        .any(|word| word == "numbers" || word == "shape");
    masked(left, numbers) == masked(right, numbers)
}

/// A text with its UUIDs and durations masked, or all of its numbers, and blanks in a row as one: columns
/// move with what stands in them.
fn masked(text: &str, numbers: bool) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = uuid(rest) {
            masked.push_str("UUID");
            rest = after;
        } else if first.is_ascii_digit() {
            let end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let (number, after) = rest.split_at(end);
            if numbers || duration(after) {
                masked.push('N');
            } else {
                masked.push_str(number);
            }
            rest = after;
        } else if first == ' ' {
            masked.push(' ');
            rest = rest.trim_start_matches(' ');
        } else {
            masked.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    masked
}

/// Whether what follows a number makes a duration of it.
fn duration(after: &str) -> bool {
    ["s", "ms", "µs"].iter().any(|unit| {
        after
            .strip_prefix(' ')
            .and_then(|after| after.strip_prefix(unit))
            .is_some_and(|after| !after.starts_with(char::is_alphanumeric))
    })
}

/// What follows a UUID that the text begins with.
fn uuid(text: &str) -> Option<&str> {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let mut rest = text;
    for (index, digits) in GROUPS.into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-')?;
        }
        let group = rest.get(..digits)?;
        if !group.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        rest = &rest[digits..];
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_uuids_may_differ_and_sizes_may_not() {
        let left = "a 1.20 s  5e8d5b2c-90aa-4dd4-a6d0-6b4dbd5b1f3e 74.0 MiB";
        let right = "a 0.9 s 00000000-90aa-4dd4-a6d0-6b4dbd5b1f3e 74.0 MiB";
        assert!(same(&[], left, right));
        let other = right.replace("74.0", "75.0");
        assert!(!same(&[], left, &other));
        assert!(same(&["numbers".to_owned()], left, &other));
        assert!(!same(&["numbers".to_owned()], left, "b"));
    }
}
