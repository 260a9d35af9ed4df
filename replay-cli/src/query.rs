//! Conditions: a small language over what `--json` prints.
//!
//! ```text
//! condition = condition "or" condition | condition "and" condition | "not" condition | "(" condition ")" | test
//! test      = path                                     it is there: not null, not false, not 0, not empty
//!           | path ("==" | "!=") (text | number | true | false | null)
//!           | path ("<" | "<=" | ">" | ">=") (number | time)
//!           | path "contains" text | path "matches" regular-expression
//! path      = member { "." member | "[" index "]" }    a member is a word, or a text in double quotes
//! ```
//!
//! `not` binds more than `and`, and `and` more than `or`. A path that goes through a list means each of its items, and
//! a test holds where it does for one of them; `first`, `last`, `count` and `[n]` (from 0) pick from the list. A path that
//! leads nowhere meets no test, not even `!=`.
//!
//! What a condition may name is in [`shape`], and it is held against that when it is parsed: a condition with a mistake in
//! its spelling would be one that never holds, and look like an answer. A condition is tried on a value as
//! [`walk`](self::walk) comes by, so nothing is built that it does not ask for.

mod parse;
pub(crate) mod shape;
pub(crate) mod walk;

use std::fmt;

use recount_store::Timestamp;
use regex::Regex;
use serde::Serialize;

use crate::render::time;
use shape::Shape;
use walk::Scalar;

pub(crate) use parse::Mistake;

/// What has to be true of a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    /// One of them, at least; there are two or more.
    Or(Vec<Condition>),
    /// All of them; there are two or more.
    And(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
    /// What a path leads to is like that.
    Test(Path, Check),
}

/// How to get to a part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path(Vec<Step>);

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the member with this name; of a list, to what `first`, `last` or `count` say.
    Member(String),
    /// To the item of a list, from 0.
    Item(usize),
}

/// What is asked of a part.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Check {
    /// That it is there.
    There,
    /// That it is this, or is not.
    Equal(bool, Literal),
    /// That it stands so to this number or time.
    Order(Order, Bound),
    /// That this is somewhere in it.
    Contains(String),
    /// That this matches somewhere in it.
    Matches(Pattern),
}

/// How one stands to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Before it.
    Less,
    /// Not after it.
    LessOrEqual,
    /// After it.
    Greater,
    /// Not before it.
    GreaterOrEqual,
}

/// A value that is written in a condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    /// Nothing.
    Null,
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(f64),
    /// A text; a time is one, too.
    Text(String),
}

/// What something is before or after.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    /// A number.
    Number(f64),
    /// A time.
    Time(Timestamp),
}

/// A regular expression; equal where it is written equally.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Condition {
    /// The condition that a text means, over values of a shape.
    ///
    /// # Errors
    ///
    /// Where it is none, or asks for what no such value has.
    pub(crate) fn parse(text: &str, shape: &'static Shape) -> Result<Self, Mistake> {
        parse::condition(text, shape)
    }

    /// Whether it is true of a value.
    pub(crate) fn holds(&self, value: &impl Serialize) -> bool {
        match self {
            Self::Or(conditions) => conditions.iter().any(|condition| condition.holds(value)),
            Self::And(conditions) => conditions.iter().all(|condition| condition.holds(value)),
            Self::Not(condition) => !condition.holds(value),
            Self::Test(path, check) => walk::any(value, &path.0, |found| check.holds(found)),
        }
    }

    /// The paths that it names, in the order in which it does, each once.
    pub(crate) fn paths(&self) -> Vec<&Path> {
        let mut paths = Vec::new();
        self.gather_paths(&mut paths);
        paths
    }

    fn gather_paths<'a>(&'a self, paths: &mut Vec<&'a Path>) {
        match self {
            Self::Or(conditions) | Self::And(conditions) => {
                for condition in conditions {
                    condition.gather_paths(paths);
                }
            }
            Self::Not(condition) => condition.gather_paths(paths),
            Self::Test(path, _) if !paths.contains(&path) => paths.push(path),
            Self::Test(..) => {}
        }
    }
}

impl Path {
    /// What it leads to in a value, as JSON; not more than a few of what is in lists.
    pub(crate) fn all_in(&self, value: &impl Serialize) -> Vec<serde_json::Value> {
        const SHOWN_MAX: usize = 5;
        let mut all = Vec::new();
        walk::any(value, &self.0, |found| {
            all.push(found.to_json());
            all.len() == SHOWN_MAX
        });
        all
    }
}

impl Check {
    fn holds(&self, found: Scalar<'_>) -> bool {
        match (self, found) {
            (Self::There, Scalar::Null | Scalar::Flag(false) | Scalar::List(0)) => false,
            (Self::There, Scalar::Number(number)) => number != 0.0,
            (Self::There, Scalar::Text(text)) => !text.is_empty(),
            (Self::There, _) => true,
            (Self::Equal(wanted, literal), found) => literal.is(found) == *wanted,
            (Self::Order(order, Bound::Number(bound)), Scalar::Number(number)) => {
                order.holds(number.partial_cmp(bound))
            }
            (Self::Order(order, Bound::Time(bound)), Scalar::Text(text)) => {
                order.holds(time::parse(text).map(|at| at.cmp(bound)))
            }
            (Self::Contains(part), Scalar::Text(text)) => text.contains(part.as_str()),
            (Self::Matches(Pattern(pattern)), Scalar::Text(text)) => pattern.is_match(text),
            (Self::Order(..) | Self::Contains(_) | Self::Matches(_), _) => false,
        }
    }
}

impl Order {
    fn holds(self, found: Option<std::cmp::Ordering>) -> bool {
        found.is_some_and(|found| match self {
            Self::Less => found.is_lt(),
            Self::LessOrEqual => found.is_le(),
            Self::Greater => found.is_gt(),
            Self::GreaterOrEqual => found.is_ge(),
        })
    }

    const fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

impl Literal {
    fn is(&self, found: Scalar<'_>) -> bool {
        match (self, found) {
            (Self::Null, Scalar::Null) => true,
            (Self::Flag(wanted), Scalar::Flag(flag)) => *wanted == flag,
            (Self::Number(wanted), Scalar::Number(number)) => wanted.total_cmp(&number).is_eq(),
            (Self::Text(wanted), Scalar::Text(text)) => wanted == text,
            _ => false,
        }
    }
}

impl fmt::Display for Condition {
    /// As [`Condition::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |f: &mut fmt::Formatter<'_>, all: &[Self], word: &str| {
            for (n, condition) in all.iter().enumerate() {
                if n > 0 {
                    write!(f, " {word} ")?;
                }
                match condition {
                    Self::Or(_) | Self::And(_) => write!(f, "({condition})")?,
                    Self::Not(_) | Self::Test(..) => write!(f, "{condition}")?,
                }
            }
            Ok(())
        };
        match self {
            Self::Or(conditions) => join(f, conditions, "or"),
            Self::And(conditions) => join(f, conditions, "and"),
            Self::Not(condition) => match **condition {
                Self::Or(_) | Self::And(_) => write!(f, "not ({condition})"),
                Self::Not(_) | Self::Test(..) => write!(f, "not {condition}"),
            },
            Self::Test(path, check) => write!(f, "{path}{check}"),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Item(index) => write!(f, "[{index}]")?,
                Step::Member(name) => {
                    if n > 0 {
                        f.write_str(".")?;
                    }
                    if parse::is_word(name) {
                        f.write_str(name)?;
                    } else {
                        parse::write_text(f, name)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::There => Ok(()),
            Self::Equal(true, literal) => write!(f, " == {literal}"),
            Self::Equal(false, literal) => write!(f, " != {literal}"),
            Self::Order(order, Bound::Number(number)) => write!(f, " {} {number}", order.sign()),
            Self::Order(order, Bound::Time(at)) => {
                write!(f, " {} \"{}\"", order.sign(), time::rfc3339(*at))
            }
            Self::Contains(part) => {
                f.write_str(" contains ")?;
                parse::write_text(f, part)
            }
            Self::Matches(Pattern(pattern)) => {
                f.write_str(" matches ")?;
                parse::write_text(f, pattern.as_str())
            }
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => parse::write_text(f, text),
        }
    }
}

#[cfg(test)]
mod tests;
