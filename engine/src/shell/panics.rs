//! What a panic of one of the engine's own parts said.

use std::any::Any;

use crate::limits;

/// Its words, or their beginning where they are many.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("it said nothing");
    let longest = limits::LAST_WORDS_BYTES_MAX.min(text.len());
    let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_all_kinds_of_panics_are_bounded() {
        let long = "ä".repeat(limits::LAST_WORDS_BYTES_MAX);
        let kept = "ä".repeat(limits::LAST_WORDS_BYTES_MAX / 2);
        assert_eq!(words(&"static"), "static");
        assert_eq!(words(&"owned".to_owned()), "owned");
        assert_eq!(words(&long), kept);
        assert_eq!(words(&7), "it said nothing");
    }
}
