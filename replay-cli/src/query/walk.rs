//! Going over what a value says of itself to serde, without building it.
//!
//! A path is followed into the members that it names; all others are passed over before anything is made of them.

use std::fmt;

use serde::ser::{self, Serialize};

use super::Step;

/// The names of items of a list, and of how many there are.
pub(crate) const FIRST: &str = "first";
pub(crate) const LAST: &str = "last";
pub(crate) const COUNT: &str = "count";

/// The one member of the structure as which `serde_json` hands over JSON that is kept as text.
const RAW: &str = "$serde_json::private::RawValue";

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'a> {
    Null,
    Flag(bool),
    Number(f64),
    Text(&'a str),
    /// A list with so many items.
    List(usize),
    /// Something with members.
    Object,
}

impl Scalar<'_> {
    /// It as JSON; of what holds others, how many or that it is there.
    pub(crate) fn to_json(self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Flag(flag) => flag.into(),
            // What was counted is told as it was counted.
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a whole number of this size fits"
            )]
            Self::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
                (number as i64).into()
            }
            Self::Number(number) => number.into(),
            Self::Text(text) => text.into(),
            Self::List(items) => serde_json::json!({ "items": items }),
            Self::Object => serde_json::json!({}),
        }
    }
}

/// Whether something that the path leads to is as `wanted` says. It goes no further than to the first.
pub(crate) fn any(
    value: &impl Serialize,
    path: &[Step],
    mut wanted: impl FnMut(Scalar<'_>) -> bool,
) -> bool {
    let walked = value.serialize(Walk {
        way: Way::Along(path),
        asked: &mut wanted,
    });
    walked.is_err()
}

/// Whether some text anywhere in a value is as `wanted` says; names of members are none.
pub(crate) fn any_text(value: &impl Serialize, mut wanted: impl FnMut(&str) -> bool) -> bool {
    let mut of_text = |scalar: Scalar<'_>| matches!(scalar, Scalar::Text(text) if wanted(text));
    let walked = value.serialize(Walk {
        way: Way::Everywhere,
        asked: &mut of_text,
    });
    walked.is_err()
}

/// Where a walk goes.
#[derive(Debug, Clone, Copy)]
enum Way<'p> {
    /// To where these steps lead.
    Along(&'p [Step]),
    Everywhere,
}

impl Way<'_> {
    /// Whether it ends here.
    fn ends(self) -> bool {
        matches!(self, Self::Along([]))
    }

    /// How it goes on at a member.
    fn at_member(self, name: &str) -> Option<Self> {
        match self {
            Self::Everywhere => Some(self),
            Self::Along([Step::Member(next), rest @ ..]) if next == name => Some(Self::Along(rest)),
            Self::Along(_) => None,
        }
    }

    /// How it goes on at an item of a list.
    fn at_item(self, index: usize, length: Option<usize>) -> Option<Self> {
        let Self::Along(steps) = self else {
            return Some(self);
        };
        let (next, rest) = steps.split_first()?;
        let picked = match next {
            Step::Item(wanted) => index == *wanted,
            Step::Member(name) if name == FIRST => index == 0,
            Step::Member(name) if name == LAST => length == Some(index + 1),
            Step::Member(name) if name == COUNT => false,
            // Each item.
            Step::Member(_) => return Some(self),
        };
        picked.then_some(Self::Along(rest))
    }

    fn counts(self) -> bool {
        matches!(self, Self::Along([Step::Member(name)]) if name == COUNT)
    }
}

/// Who is asked about what is met.
type Asked<'a> = dyn FnMut(Scalar<'_>) -> bool + 'a;

fn tell(asked: &mut Asked<'_>, scalar: Scalar<'_>) -> Walked {
    if asked(scalar) { Err(Found) } else { Ok(()) }
}

type Walked = Result<(), Found>;

/// The walk is over: it was found.
#[derive(Debug)]
struct Found;

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("found")
    }
}

impl std::error::Error for Found {}

impl ser::Error for Found {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

struct Walk<'w, 'a, 'p> {
    way: Way<'p>,
    asked: &'w mut Asked<'a>,
}

impl<'w, 'a, 'p> Walk<'w, 'a, 'p> {
    fn scalar(self, scalar: Scalar<'_>) -> Walked {
        match self.way {
            Way::Along([]) | Way::Everywhere => tell(self.asked, scalar),
            Way::Along(_) => Ok(()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "conditions count as people do")]
    fn whole(self, number: i128) -> Walked {
        self.scalar(Scalar::Number(number as f64))
    }

    /// Goes into something with members.
    fn members(self) -> Result<Members<'w, 'a, 'p>, Found> {
        if self.way.ends() {
            tell(self.asked, Scalar::Object)?;
        }
        Ok(Members {
            way: self.way,
            asked: self.asked,
            key: None,
        })
    }

    fn items(self, length: Option<usize>) -> Items<'w, 'a, 'p> {
        Items {
            way: self.way,
            asked: self.asked,
            index: 0,
            length,
        }
    }

    /// What is in a variant of this name is its one member.
    fn variant(self, name: &str) -> Result<Option<Self>, Found> {
        if self.way.ends() {
            tell(self.asked, Scalar::Object)?;
        }
        let asked = self.asked;
        Ok(self.way.at_member(name).map(|way| Self { way, asked }))
    }
}

macro_rules! whole {
    ($($name:ident $type:ty),*) => {
        $( fn $name(self, number: $type) -> Walked { self.whole(number.into()) } )*
    };
}

impl<'w, 'a, 'p> ser::Serializer for Walk<'w, 'a, 'p> {
    type Ok = ();
    type Error = Found;
    type SerializeSeq = Items<'w, 'a, 'p>;
    type SerializeTuple = Items<'w, 'a, 'p>;
    type SerializeTupleStruct = Items<'w, 'a, 'p>;
    type SerializeTupleVariant = Items<'w, 'a, 'p>;
    type SerializeMap = Members<'w, 'a, 'p>;
    type SerializeStruct = Members<'w, 'a, 'p>;
    type SerializeStructVariant = Members<'w, 'a, 'p>;

    whole!(
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64
    );

    fn serialize_bool(self, flag: bool) -> Walked {
        self.scalar(Scalar::Flag(flag))
    }

    fn serialize_f32(self, number: f32) -> Walked {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, number: f64) -> Walked {
        self.scalar(Scalar::Number(number))
    }

    fn serialize_char(self, c: char) -> Walked {
        self.serialize_str(c.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Walked {
        self.scalar(Scalar::Text(text))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Walked {
        bytes.serialize(self)
    }

    fn serialize_none(self) -> Walked {
        self.scalar(Scalar::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Walked {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Walked {
        self.scalar(Scalar::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Walked {
        self.scalar(Scalar::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Walked {
        self.scalar(Scalar::Text(name))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, v: &T) -> Walked {
        v.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Walked {
        match self.variant(name)? {
            Some(walk) => value.serialize(walk),
            None => Ok(()),
        }
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, Found> {
        Ok(self.items(length))
    }

    fn serialize_tuple(self, length: usize) -> Result<Self::SerializeTuple, Found> {
        Ok(self.items(Some(length)))
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleStruct, Found> {
        Ok(self.items(Some(length)))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, Found> {
        Ok(self.items(Some(length)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Found> {
        self.members()
    }

    fn serialize_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStruct, Found> {
        if name == RAW {
            return Ok(Members {
                way: self.way,
                asked: self.asked,
                key: None,
            });
        }
        self.members()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Found> {
        if self.way.ends() {
            tell(self.asked, Scalar::Object)?;
        }
        // A way that does not lead here leads to nothing in it.
        let way = self.way.at_member(name).unwrap_or(Way::Along(&[]));
        Ok(Members {
            way,
            asked: self.asked,
            key: None,
        })
    }
}

/// The items of a list.
struct Items<'w, 'a, 'p> {
    way: Way<'p>,
    asked: &'w mut Asked<'a>,
    index: usize,
    length: Option<usize>,
}

impl Items<'_, '_, '_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        let way = self.way.at_item(self.index, self.length);
        self.index += 1;
        match way {
            Some(way) => value.serialize(Walk {
                way,
                asked: self.asked,
            }),
            None => Ok(()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "no list is that long")]
    fn finish(self) -> Walked {
        if self.way.counts() {
            return tell(self.asked, Scalar::Number(self.index as f64));
        }
        if self.way.ends() {
            return tell(self.asked, Scalar::List(self.index));
        }
        Ok(())
    }
}

macro_rules! items {
    ($($trait:ident $one:ident),*) => {
        $( impl ser::$trait for Items<'_, '_, '_> {
            type Ok = ();
            type Error = Found;

            fn $one<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
                self.item(value)
            }

            fn end(self) -> Walked {
                self.finish()
            }
        } )*
    };
}

items!(
    SerializeSeq serialize_element, SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field
);

/// What has members.
struct Members<'w, 'a, 'p> {
    way: Way<'p>,
    asked: &'w mut Asked<'a>,
    /// The name of the next member of a map.
    key: Option<String>,
}

impl Members<'_, '_, '_> {
    fn member<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Walked {
        if name == RAW {
            return self.raw(value);
        }
        match self.way.at_member(name) {
            Some(way) => value.serialize(Walk {
                way,
                asked: self.asked,
            }),
            None => Ok(()),
        }
    }

    /// JSON that is kept as text is what it says.
    fn raw<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        let Ok(serde_json::Value::String(text)) = serde_json::to_value(value) else {
            return Ok(());
        };
        let walk = Walk {
            way: self.way,
            asked: self.asked,
        };
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(value) => value.serialize(walk),
            Err(_) => text.serialize(walk),
        }
    }
}

impl ser::SerializeMap for Members<'_, '_, '_> {
    type Ok = ();
    type Error = Found;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Walked {
        self.key = match serde_json::to_value(key) {
            Ok(serde_json::Value::String(name)) => Some(name),
            _ => None,
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        match self.key.take() {
            Some(name) => self.member(&name, value),
            None => Ok(()),
        }
    }

    fn end(self) -> Walked {
        Ok(())
    }
}

impl ser::SerializeStruct for Members<'_, '_, '_> {
    type Ok = ();
    type Error = Found;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Walked {
        self.member(name, value)
    }

    fn end(self) -> Walked {
        Ok(())
    }
}

impl ser::SerializeStructVariant for Members<'_, '_, '_> {
    type Ok = ();
    type Error = Found;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Walked {
        self.member(name, value)
    }

    fn end(self) -> Walked {
        Ok(())
    }
}
