//! Asking the person at the terminal, whatever standard input and output are.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

use recount_projections::turn::{Answered, Asks};
use recount_store::Prompt;

use crate::render::text;

/// Puts a question of an agent's to the person at the terminal; none where there is no terminal, or where the person
/// has gone from it.
pub(crate) fn ask(asks: &Asks) -> Option<Answered> {
    let open = || File::options().read(true).write(true).open("/dev/tty");
    let (input, mut output) = (open().ok()?, open().ok()?);
    put(asks, &mut BufReader::new(input), &mut output).ok()?
}

fn put(
    asks: &Asks,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> io::Result<Option<Answered>> {
    match asks {
        Asks::Permission { action, detail } => {
            let (action, detail) = (text::one_line(action), text::one_line(detail));
            write!(output, "Allow {action}: {detail}? [y]es, [a]lways, [N]o: ")?;
            Ok(line(input)?.map(|line| permitted(&line)))
        }
        Asks::Words(prompts) => {
            let mut answers = Vec::new();
            for prompt in prompts {
                match answer(prompt, input, output)? {
                    Some(Answer::Given(texts)) => answers.push(texts),
                    Some(Answer::Refused) => return Ok(Some(Answered::Reject)),
                    None => return Ok(None),
                }
            }
            Ok(Some(Answered::Words(answers)))
        }
    }
}

/// A line that was typed; none at the end of input, which is no word of a person's.
fn line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    Ok((input.read_line(&mut line)? > 0).then_some(line))
}

/// What a person meant; what is not clearly a yes is a no.
fn permitted(line: &str) -> Answered {
    match line.trim().to_lowercase().as_str() {
        "y" | "yes" => Answered::Once,
        "a" | "always" => Answered::Always,
        _ => Answered::Reject,
    }
}

/// What a person says to a prompt.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Given(Vec<String>),
    Refused,
}

/// The answer to one prompt, asked for until it is one.
fn answer(
    prompt: &Prompt,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> io::Result<Option<Answer>> {
    writeln!(output, "{}", text::one_line(&prompt.text))?;
    for (number, option) in (1..).zip(&prompt.options) {
        let label = text::one_line(&option.label);
        match text::one_line(&option.about) {
            about if about.is_empty() => writeln!(output, "  {number} {label}")?,
            about => writeln!(output, "  {number} {label}: {about}")?,
        }
    }
    let how = match (prompt.options.is_empty(), prompt.multiple, prompt.custom) {
        (true, ..) => "In words",
        (false, false, false) => "A number",
        (false, true, false) => "Numbers",
        (false, false, true) => "A number, or in words",
        (false, true, true) => "Numbers, or in words",
    };
    loop {
        write!(output, "{how}; nothing refuses to answer: ")?;
        let Some(line) = line(input)? else {
            return Ok(None);
        };
        match chosen(line.trim(), prompt) {
            Some(answer) => return Ok(Some(answer)),
            None => writeln!(output, "That is none of the answers.")?,
        }
    }
}

/// What a line says to a prompt; none where it is no answer to it.
fn chosen(line: &str, prompt: &Prompt) -> Option<Answer> {
    if line.is_empty() {
        return Some(Answer::Refused);
    }
    let option = |word: &str| {
        let number: usize = word.parse().ok()?;
        prompt.options.get(number.checked_sub(1)?)
    };
    let numbers = line.split([',', ' ']).filter(|word| !word.is_empty());
    let options: Option<Vec<_>> = numbers.map(option).collect();
    match options {
        Some(options) if options.len() == 1 || prompt.multiple => Some(Answer::Given(
            options.iter().map(|option| option.label.clone()).collect(),
        )),
        _ if prompt.custom || prompt.options.is_empty() => {
            Some(Answer::Given(vec![line.to_owned()]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use recount_store::Choice;

    fn prompt(multiple: bool, custom: bool) -> Prompt {
        let choice = |label: &str, about: &str| Choice {
            label: label.to_owned(),
            about: about.to_owned(),
        };
        Prompt {
            header: "Colour".to_owned(),
            text: "Which colour?".to_owned(),
            options: vec![choice("red", "Like fire"), choice("blue", "")],
            multiple,
            custom,
        }
    }

    // As `chosen` gives it, to compare with that.
    #[allow(clippy::unnecessary_wraps)]
    fn given(texts: &[&str]) -> Option<Answer> {
        let texts = texts.iter().map(|&text| text.to_owned());
        Some(Answer::Given(texts.collect()))
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        assert_eq!(permitted("y\n"), Answered::Once);
        assert_eq!(permitted(" YES \n"), Answered::Once);
        assert_eq!(permitted("a\n"), Answered::Always);
        for no in ["\n", "n\n", "yess\n", "ja\n", ""] {
            assert_eq!(permitted(no), Answered::Reject, "{no:?}");
        }
    }

    #[test]
    fn a_number_is_an_option_and_words_are_words() {
        let one = prompt(false, true);
        assert_eq!(chosen("2", &one), given(&["blue"]));
        assert_eq!(chosen("3", &one), given(&["3"]));
        assert_eq!(chosen("0", &one), given(&["0"]));
        assert_eq!(chosen("1 2", &one), given(&["1 2"]));
        assert_eq!(chosen("dark green", &one), given(&["dark green"]));
        assert_eq!(chosen("", &one), Some(Answer::Refused));
        let many = prompt(true, true);
        assert_eq!(chosen("1, 2", &many), given(&["red", "blue"]));
        assert_eq!(chosen("2", &many), given(&["blue"]));
        assert_eq!(chosen("1 green", &many), given(&["1 green"]));
        let closed = prompt(false, false);
        assert_eq!(chosen("1", &closed), given(&["red"]));
        assert_eq!(chosen("1 2", &closed), None);
        assert_eq!(chosen("green", &closed), None);
    }

    fn said(asks: &Asks, typed: &str) -> (Option<Answered>, String) {
        let mut output = Vec::new();
        let answered = put(asks, &mut typed.as_bytes(), &mut output).expect("memory takes all");
        (answered, String::from_utf8(output).expect("text"))
    }

    #[test]
    fn each_prompt_is_asked_until_it_is_answered() {
        let asks = Asks::Words(vec![prompt(false, false), prompt(true, true)]);
        let (answered, seen) = said(&asks, "green\n1\n1 2\n");
        let words = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        assert_eq!(
            answered,
            Some(Answered::Words(vec![
                words(&["red"]),
                words(&["red", "blue"])
            ]))
        );
        assert_eq!(
            seen,
            "Which colour?\n  1 red: Like fire\n  2 blue\n\
             A number; nothing refuses to answer: That is none of the answers.\n\
             A number; nothing refuses to answer: \
             Which colour?\n  1 red: Like fire\n  2 blue\n\
             Numbers, or in words; nothing refuses to answer: "
        );
        assert_eq!(said(&asks, "1\n\n").0, Some(Answered::Reject));
        assert_eq!(said(&asks, "1\n").0, None, "the person has gone");
    }

    #[test]
    fn what_an_agent_says_cannot_move_the_cursor() {
        let mut odd = prompt(false, true);
        odd.text = "a\u{1b}[2Jb\nc".to_owned();
        let (_, seen) = said(&Asks::Words(vec![odd]), "1\n");
        assert!(!seen.contains('\u{1b}'), "{seen:?}");
    }
}
