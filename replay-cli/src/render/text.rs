//! Text of others, made fit for a terminal.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The text in one line: line ends and other control characters are shown by their escapes.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escape(text, is_strange)
}

/// The text with its lines and tabs; other control characters are shown by their escapes, so that no
/// agent can move a person's cursor.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_strange(c) && c != '\n' && c != '\t')
}

/// Whether a terminal obeys the character instead of showing it: controls, and what turns the direction
/// of the text around it.
fn is_strange(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(text: &str, strange: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&strange) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if strange(c) {
            // The short escapes where there are some, numbers for the rest.
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The text cut to so many columns, with an ellipsis where it was cut.
pub(crate) fn clip(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let mut used = 0;
    let mut end = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        // One column is the ellipsis's.
        if used >= width {
            break;
        }
        end = at + c.len_utf8();
    }
    Cow::Owned(format!("{}…", &text[..end]))
}

/// A line in pieces of so many columns, broken after a space where there is one; at least one piece.
pub(crate) fn wrapped(line: &str, width: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = line;
    loop {
        let (mut used, mut end, mut space) = (0, rest.len(), None);
        for (at, c) in rest.char_indices() {
            used += c.width().unwrap_or(0);
            if c == ' ' {
                space = Some(at + 1);
            }
            if used > width && at > 0 {
                end = at;
                break;
            }
        }
        if end < rest.len() {
            end = space.unwrap_or(end);
        }
        let (piece, left) = rest.split_at(end);
        pieces.push(piece.trim_end().to_owned());
        if left.is_empty() {
            return pieces;
        }
        rest = left;
    }
}

/// The same, where all pieces but the first are indented.
pub(crate) fn hanging(line: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "  ";
    let pieces = wrapped(line, width.saturating_sub(INDENT.len()).max(1));
    let indents = std::iter::once("").chain(std::iter::repeat(INDENT));
    indents
        .zip(pieces)
        .map(|(indent, piece)| format!("{indent}{piece}"))
        .collect()
}

/// How many columns a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// Each line of the text behind an indent; no line end at the end.
pub(crate) fn indented(text: &str, indent: &str) -> String {
    let text = lines(text);
    let lines: Vec<String> = text.lines().map(|line| format!("{indent}{line}")).collect();
    lines.join("\n")
}

/// A number with its noun: `1 event`, `2 events`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// So many bytes, in the unit that fits: `512 bytes`, `1.5 kB`, `20.3 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return count(bytes, "byte");
    }
    let (mut tenths, mut unit) = (bytes / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strange_characters_are_shown_and_not_obeyed() {
        assert_eq!(one_line("a\nb\u{1b}[2Jc"), "a\\nb\\u{1b}[2Jc");
        assert_eq!(
            one_line("a\u{202e}b 👩\u{200d}🚀"),
            "a\\u{202e}b 👩\u{200d}🚀"
        );
        assert_eq!(lines("a\nb\u{1b}[2Jc\r"), "a\nb\\u{1b}[2Jc\\r");
        assert!(matches!(lines("plain\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn bytes_are_told_in_the_unit_that_fits() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(999_999), "999.9 kB");
        assert_eq!(bytes(20_350_000), "20.3 MB");
        assert_eq!(bytes(7_000_000_000_000_000), "7000.0 TB");
    }

    #[test]
    fn what_goes_on_hangs_below_its_beginning() {
        assert_eq!(hanging("a bc def", 20), ["a bc def"]);
        assert_eq!(
            hanging("alpha beta gamma", 10),
            ["alpha", "  beta", "  gamma"]
        );
        assert_eq!(
            hanging("abcdefghijkl m", 6),
            ["abcd", "  efgh", "  ijkl", "  m"]
        );
        assert_eq!(hanging("", 1), [""]);
    }

    #[test]
    fn a_wrapped_line_loses_no_word() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("incomprehensible", 6), ["incomp", "rehens", "ible"]);
        assert_eq!(wrapped("日本語です", 5), ["日本", "語で", "す"]);
        assert_eq!(wrapped("日本", 1), ["日", "本"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn a_clipped_text_has_the_width() {
        assert_eq!(clip("short", 5), "short");
        assert_eq!(clip("longer", 5), "long…");
        // Each of these takes two columns.
        assert_eq!(clip("日本語です", 6), "日本…");
        assert_eq!(clip("x", 0), "…");
        assert_eq!(clip("", 0), "");
    }
}
