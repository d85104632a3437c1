//! The picture of a terminal that the README shows, drawn from a run that the book pastes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Page, pages, sessions};
use crate::run;

/// The page whose blocks with the word `picture` are drawn, and the picture.
const PAGE: &str = "docs/first-steps.md";
const PICTURE: &str = "docs/terminal.svg";

/// Pixels; the letters of a monospaced font of 14 pixels are 8.43 wide.
const LINE: usize = 20;
const LETTER: f64 = 8.43;
const MARGIN: usize = 20;
const TITLE: usize = 36;
/// The window is never narrower, in letters.
const NARROWEST: usize = 80;

/// Draws it again from what the page has now.
pub(super) fn redraw() -> Result<()> {
    let page = pages::read(Path::new(PAGE))?;
    let drawn = draw(&lines(&page)?);
    let path = run::root().join(PICTURE);
    if fs::read_to_string(&path).ok().as_ref() != Some(&drawn) {
        fs::write(&path, drawn).with_context(|| format!("cannot write {PICTURE}"))?;
        println!("drawn: {PICTURE}");
    }
    Ok(())
}

/// Says so when the picture shows another run than the page.
pub(super) fn stale(pages: &[Page]) -> Result<Option<String>> {
    let Some(page) = pages.iter().find(|page| page.path == Path::new(PAGE)) else {
        return Ok(Some(format!("{PAGE} is missing")));
    };
    let drawn = draw(&lines(page)?);
    let kept = fs::read_to_string(run::root().join(PICTURE)).unwrap_or_default();
    Ok((drawn != kept).then(|| {
        format!("{PICTURE} is not what {PAGE} shows: `cargo xtask book --update` draws it again")
    }))
}

/// How a line of the terminal looks.
#[derive(Clone, Copy)]
enum Look {
    Command,
    Output,
    Hint,
}

fn lines(page: &Page) -> Result<Vec<(Look, String)>> {
    let mut lines = Vec::new();
    for shown in sessions::marked(page, "picture")? {
        for line in shown.command.lines() {
            lines.push((Look::Command, line.to_owned()));
        }
        for line in shown.output.lines() {
            let look = if line.starts_with("hint:") {
                Look::Hint
            } else {
                Look::Output
            };
            lines.push((look, line.to_owned()));
        }
        lines.push((Look::Output, String::new()));
    }
    lines.pop();
    Ok(lines)
}

/// A window with these lines. It brings its own background, so that it reads on light and on dark pages.
fn draw(lines: &[(Look, String)]) -> String {
    let widest = lines
        .iter()
        .map(|(look, line)| {
            line.chars().count() + if matches!(look, Look::Command) { 2 } else { 0 }
        })
        .max()
        .unwrap_or_default()
        .max(NARROWEST);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "some hundred pixels"
    )]
    let width = (widest as f64 * LETTER).ceil() as usize + 2 * MARGIN;
    let height = TITLE + lines.len() * LINE + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>A layer becomes a disk, and a VM reads it</title>\n\
         <style>\n\
         text {{ font: 14px ui-monospace, \"DejaVu Sans Mono\", Menlo, Consolas, monospace; \
         white-space: pre; fill: #d6dde6 }}\n\
         .command {{ fill: #ffffff; font-weight: bold }}\n\
         .prompt {{ fill: #7ee787 }}\n\
         .hint {{ fill: #e3b341 }}\n\
         </style>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"10\" fill=\"#161b22\" stroke=\"#8b949e\"/>\n",
        width - 1,
        height - 1,
    );
    for (index, colour) in ["#ff5f57", "#febc2e", "#28c840"].into_iter().enumerate() {
        let x = MARGIN + index * 20;
        svg.push_str(&format!(
            "<circle cx=\"{x}\" cy=\"18\" r=\"6\" fill=\"{colour}\"/>\n"
        ));
    }
    for (index, (look, line)) in lines.iter().enumerate() {
        if line.is_empty() {
            continue;
        }
        let y = TITLE + (index + 1) * LINE - 5;
        let text = escape(line);
        let content = match look {
            Look::Command if line.starts_with(' ') => {
                format!("<tspan class=\"command\">{text}</tspan>")
            }
            Look::Command => {
                format!("<tspan class=\"prompt\">$ </tspan><tspan class=\"command\">{text}</tspan>")
            }
            Look::Output => text,
            Look::Hint => format!("<tspan class=\"hint\">{text}</tspan>"),
        };
        svg.push_str(&format!(
            "<text x=\"{MARGIN}\" y=\"{y}\" xml:space=\"preserve\">{content}</text>\n"
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_svg_takes_for_markup_is_escaped() {
        let drawn = draw(&[
            (Look::Command, "a < b & c".into()),
            (Look::Hint, "hint: x".into()),
        ]);
        assert!(drawn.contains("a &lt; b &amp; c"), "{drawn}");
        assert!(drawn.contains("class=\"hint\">hint: x"), "{drawn}");
    }
}
