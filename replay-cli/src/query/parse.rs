//! From a text to a condition, or to what is wrong with it and where.

use std::fmt::{self, Write as _};
use std::ops::Range;

use regex::Regex;

use super::shape::Shape;
use super::walk::{COUNT, FIRST, LAST};
use super::{Bound, Check, Condition, Literal, Order, Path, Pattern, Step};
use crate::render::{text, time};

/// How deep a condition may be nested: people do not write more, and the stack is not for the taking.
const DEPTH_MAX: usize = 64;

/// Why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    what: String,
    /// The text, and the part of it that is wrong.
    text: String,
    place: Range<usize>,
    hint: Option<String>,
}

impl Mistake {
    /// The text with a caret under the place, and what would be right, if that is known.
    pub(crate) fn shown(&self) -> String {
        // Escapes would move what stands after them; a tab or a line end is as wide as a space here.
        let line: String = self
            .text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let before = text::width(&line[..self.place.start]);
        let marked = text::width(&line[self.place.clone()]).max(1);
        let mut shown = format!("{line}\n{}{}", " ".repeat(before), "^".repeat(marked));
        if let Some(hint) = &self.hint {
            let _ = write!(shown, "\n{hint}");
        }
        shown
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Mistake {}

/// Whether a name can stand in a path without quotes.
pub(super) fn is_word(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(begins_word) && chars.all(in_word) && !KEYWORDS.contains(&name)
}

/// Writes a text as a condition has it.
pub(super) fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

const KEYWORDS: [&str; 8] = [
    "and", "or", "not", "contains", "matches", "true", "false", "null",
];

fn begins_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// One piece of a condition.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number(f64),
    Sign(&'static str),
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}`"),
            Self::Text(_) => f.write_str("a text"),
            Self::Number(_) => f.write_str("a number"),
            Self::Sign(sign) => write!(f, "`{sign}`"),
            Self::End => f.write_str("the end"),
        }
    }
}

const SIGNS: [&str; 12] = [
    "==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", ".", "=",
];

fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, Mistake> {
    let mistake = |what: &str, place: Range<usize>| Mistake {
        what: what.to_owned(),
        text: text.to_owned(),
        place,
        hint: None,
    };
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let take = |wanted: fn(char) -> bool| rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        let (token, length) = if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        } else if begins_word(c) {
            let length = take(in_word);
            (Token::Word(rest[..length].to_owned()), length)
        } else if c == '"' || c == '\'' {
            let (read, length) =
                quoted(rest, c).ok_or_else(|| mistake("this text has no end", at..text.len()))?;
            (Token::Text(read), length)
        } else if c.is_ascii_digit() || c == '-' {
            let length = take(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
            let number: Option<f64> = rest[..length].parse().ok();
            let number = number.filter(|number| number.is_finite());
            let number = number.ok_or_else(|| {
                mistake("this is no number", at..at + length)
                    .hint("a time stands in quotes: \"2026-11-22T09:14:03Z\"")
            })?;
            (Token::Number(number), length)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            return Err(mistake("this means nothing here", at..at + c.len_utf8()));
        };
        tokens.push((token, at..at + length));
        at += length;
    }
    tokens.push((Token::End, at..at));
    Ok(tokens)
}

/// The text in quotes at the beginning, and how much of it there is with the quotes.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut read = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((read, at + 1)),
            '\\' => match chars.next()?.1 {
                'n' => read.push('\n'),
                't' => read.push('\t'),
                c @ ('"' | '\'' | '\\') => read.push(c),
                // As regular expressions have it.
                c => read.extend(['\\', c]),
            },
            c => read.push(c),
        }
    }
    None
}

/// The condition that a text is.
pub(super) fn condition(text: &str, shape: &'static Shape) -> Result<Condition, Mistake> {
    let mut parser = Parser {
        text,
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
        shape,
    };
    let condition = parser.either()?;
    match parser.peek() {
        Token::End => Ok(condition),
        Token::Sign("=") => {
            let mistake = parser.mistake("`=` is no comparison");
            Err(mistake.hint("whether it is the same is asked with =="))
        }
        found => {
            let what = format!("a comparison, `and`, `or` or the end belongs here, not {found}");
            Err(parser.mistake(what))
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token, Range<usize>)>,
    next: usize,
    depth: usize,
    shape: &'static Shape,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].0
    }

    fn place(&self) -> Range<usize> {
        self.tokens[self.next].1.clone()
    }

    /// The next piece, which is not the end.
    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is = matches!(self.peek(), Token::Sign(next) if *next == sign);
        self.next += usize::from(is);
        is
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is = matches!(self.peek(), Token::Word(next) if next == word);
        self.next += usize::from(is);
        is
    }

    fn mistake(&self, what: impl Into<String>) -> Mistake {
        self.mistake_at(what, self.place())
    }

    fn mistake_at(&self, what: impl Into<String>, place: Range<usize>) -> Mistake {
        Mistake {
            what: what.into(),
            text: self.text.to_owned(),
            place,
            hint: None,
        }
    }

    fn either(&mut self) -> Result<Condition, Mistake> {
        let first = self.both()?;
        let mut all = vec![first];
        while self.takes_word("or") {
            all.push(self.both()?);
        }
        Ok(one_or(all, Condition::Or))
    }

    fn both(&mut self) -> Result<Condition, Mistake> {
        let first = self.one()?;
        let mut all = vec![first];
        while self.takes_word("and") {
            all.push(self.one()?);
        }
        Ok(one_or(all, Condition::And))
    }

    fn one(&mut self) -> Result<Condition, Mistake> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.mistake(format!("this is nested more than {DEPTH_MAX} deep")));
        }
        let condition = if self.takes_word("not") {
            Condition::Not(Box::new(self.one()?))
        } else if self.takes("(") {
            let condition = self.either()?;
            if !self.takes(")") {
                return Err(self.mistake(format!("`)` belongs here, not {}", self.peek())));
            }
            condition
        } else {
            let (path, shape) = self.path()?;
            let check = self.check(shape)?;
            Condition::Test(path, check)
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn path(&mut self) -> Result<(Path, &'static Shape), Mistake> {
        let mut steps = Vec::new();
        let mut shape = self.shape;
        loop {
            let place = self.place();
            let name = match self.take() {
                Token::Text(name) => name,
                Token::Word(name) if is_word(&name) => name,
                found if steps.is_empty() => {
                    let what = format!("the name of a member belongs here, not {found}");
                    return Err(self.mistake_at(what, place).hint(known(self.shape)));
                }
                found => {
                    let what = format!("the name of a member belongs after `.`, not {found}");
                    return Err(self.mistake_at(what, place).hint(known(shape)));
                }
            };
            shape = self.step(shape, &name, place)?;
            steps.push(Step::Member(name));
            while self.takes("[") {
                let place = self.place();
                let index = match self.take() {
                    // A whole number that is small enough stays as it is.
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "it was looked at"
                    )]
                    Token::Number(n) if (0.0..1e9).contains(&n) && n.fract() == 0.0 => n as usize,
                    _ => {
                        return Err(
                            self.mistake_at("the number of an item belongs here, from 0", place)
                        );
                    }
                };
                shape = match shape {
                    Shape::List(item) => item,
                    Shape::Any => shape,
                    other => {
                        let what = format!("this picks from a list, and there is {}", other.noun());
                        return Err(self.mistake_at(what, place));
                    }
                };
                if !self.takes("]") {
                    return Err(self.mistake(format!("`]` belongs here, not {}", self.peek())));
                }
                steps.push(Step::Item(index));
            }
            if !self.takes(".") {
                return Ok((Path(steps), shape));
            }
        }
    }

    /// What a name leads to.
    fn step(
        &self,
        shape: &'static Shape,
        name: &str,
        place: Range<usize>,
    ) -> Result<&'static Shape, Mistake> {
        if let Shape::List(item) = shape {
            match name {
                FIRST | LAST => return Ok(item),
                COUNT => return Ok(&Shape::Number),
                _ => {}
            }
        }
        let within = shape.each();
        within.member(name).ok_or_else(|| {
            let what = match within {
                Shape::Object(_) => format!("there is no `{name}` here"),
                other => format!("{} has no members", other.noun()),
            };
            self.mistake_at(what, place).hint(known(shape))
        })
    }

    fn check(&mut self, shape: &'static Shape) -> Result<Check, Mistake> {
        let place = self.place();
        let order = match self.peek() {
            Token::Sign("==" | "!=") => {
                let equal = matches!(self.take(), Token::Sign("=="));
                return Ok(Check::Equal(equal, self.literal(shape)?));
            }
            Token::Word(word) if word == "contains" => {
                self.next += 1;
                self.is_text(shape, place)?;
                return Ok(Check::Contains(self.words()?.0));
            }
            Token::Word(word) if word == "matches" => {
                self.next += 1;
                self.is_text(shape, place)?;
                let (pattern, place) = self.words()?;
                let pattern = Regex::new(&pattern).map_err(|error| {
                    let last = error.to_string();
                    let why = last.lines().last().unwrap_or_default().to_owned();
                    self.mistake_at("this is no regular expression", place)
                        .hint(why)
                })?;
                return Ok(Check::Matches(Pattern(pattern)));
            }
            Token::Sign("<") => Order::Less,
            Token::Sign("<=") => Order::LessOrEqual,
            Token::Sign(">") => Order::Greater,
            Token::Sign(">=") => Order::GreaterOrEqual,
            _ => return Ok(Check::There),
        };
        self.next += 1;
        let of = self.place();
        let bound = match (shape.each(), self.take()) {
            (Shape::Number | Shape::Any, Token::Number(number)) => Bound::Number(number),
            (Shape::Time | Shape::Any, Token::Text(text)) => {
                Bound::Time(time::parse(&text).ok_or_else(|| {
                    self.mistake_at("this is no time like \"2026-11-22T09:14:03Z\"", of)
                })?)
            }
            (Shape::Number, found) => {
                return Err(self.mistake_at(format!("a number belongs here, not {found}"), of));
            }
            (Shape::Time, found) => {
                let what =
                    format!("a time like \"2026-11-22T09:14:03Z\" belongs here, not {found}");
                return Err(self.mistake_at(what, of));
            }
            (Shape::Any, found) => {
                let what = format!("a number or a time belongs here, not {found}");
                return Err(self.mistake_at(what, of));
            }
            (other, _) => {
                let what = format!("only numbers and times have an order, not {}", other.noun());
                return Err(self.mistake_at(what, place));
            }
        };
        Ok(Check::Order(order, bound))
    }

    fn is_text(&self, shape: &'static Shape, place: Range<usize>) -> Result<(), Mistake> {
        match shape.each() {
            Shape::Text | Shape::Words(_) | Shape::Time | Shape::Any => Ok(()),
            other => {
                let what = format!("only a text can be searched, not {}", other.noun());
                Err(self.mistake_at(what, place))
            }
        }
    }

    fn words(&mut self) -> Result<(String, Range<usize>), Mistake> {
        let place = self.place();
        match self.take() {
            Token::Text(text) => Ok((text, place)),
            found => {
                let what = format!("a text in quotes belongs here, not {found}");
                Err(self.mistake_at(what, place))
            }
        }
    }

    fn literal(&mut self, shape: &'static Shape) -> Result<Literal, Mistake> {
        let place = self.place();
        let literal = match self.take() {
            Token::Text(text) => Literal::Text(text),
            Token::Number(number) => Literal::Number(number),
            Token::Word(word) => match word.as_str() {
                "true" => Literal::Flag(true),
                "false" => Literal::Flag(false),
                "null" => Literal::Null,
                _ => {
                    let mistake = self.mistake_at("a text stands in quotes", place);
                    return Err(mistake.hint(format!("\"{word}\"")));
                }
            },
            found => {
                let what =
                    format!("a text, a number, true, false or null belongs here, not {found}");
                return Err(self.mistake_at(what, place));
            }
        };
        let shape = shape.each();
        match (shape, &literal) {
            (Shape::Any, _)
            | (_, Literal::Null)
            | (Shape::Number, Literal::Number(_))
            | (Shape::Flag, Literal::Flag(_))
            | (Shape::Text, Literal::Text(_)) => Ok(literal),
            (Shape::Words(words), Literal::Text(word)) => {
                if words.contains(&word.as_str()) {
                    return Ok(literal);
                }
                let mistake = self.mistake_at(format!("it is never {word:?}"), place);
                Err(mistake.hint(format!("it can be: {}", words.join(", "))))
            }
            // What is shown is the one way of many to write it.
            (Shape::Time, Literal::Text(text)) => match time::parse(text) {
                Some(at) => Ok(Literal::Text(time::rfc3339(at))),
                None => {
                    Err(self.mistake_at("this is no time like \"2026-11-22T09:14:03Z\"", place))
                }
            },
            (Shape::Object(_), _) => Err(self
                .mistake_at("an object is like nothing else", place)
                .hint(known(shape))),
            (other, _) => Err(self.mistake_at(
                format!(
                    "this is compared with {}, and can never be the same",
                    other.noun()
                ),
                place,
            )),
        }
    }
}

fn one_or(mut all: Vec<Condition>, many: fn(Vec<Condition>) -> Condition) -> Condition {
    match all.len() {
        1 => all.remove(0),
        _ => many(all),
    }
}

/// What can be named in a value of a shape.
fn known(shape: &'static Shape) -> String {
    let list: &[&str] = match shape {
        Shape::List(_) => &[FIRST, LAST, COUNT],
        _ => &[],
    };
    let members: &[(&str, Shape)] = match shape.each() {
        Shape::Object(members) => members,
        _ => &[],
    };
    let names = members.iter().map(|(name, _)| *name);
    let all: Vec<&str> = list.iter().copied().chain(names).collect();
    match all.len() {
        0 => "nothing can be named here".to_owned(),
        _ => format!("there are: {}", all.join(", ")),
    }
}
