//! Walks a type through its `Deserialize`: what it is made of, without a value of it. Every primitive gets a value that follows from the
//! names of its type, variant and field, so that two fields that change places show in the bytes.
//!
//! Notes what no wire type may be: recursive (postcard has no depth limit: 40 KB of nesting overflow a stack), or a sequence of elements
//! without bytes (a length alone would then make the reader loop).

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What is known so far, over several walks.
#[derive(Default)]
pub struct Trace {
    /// The types that the walk is inside of.
    inside: Vec<&'static str>,
    /// Knuth's linear congruential generator (MMIX): the variant of the next enum is drawn with it, always the same ones.
    draw: u64,
    /// The variants of each enum, and which were walked.
    pub variants: BTreeMap<&'static str, (usize, BTreeSet<usize>)>,
    /// Primitives given so far.
    leaves: usize,
    /// What no wire type may be, found.
    pub faults: BTreeSet<String>,
    /// Where set, the outermost enum takes this variant and all others their first.
    fixed: Option<usize>,
}

/// The names of the variants of `T`; empty where it is no enum.
pub fn variants_of<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);
    impl<'de> de::Deserializer<'de> for Names<'_> {
        type Error = Error;
        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error("no enum".into()))
        }
        fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, names: &'static [&'static str], _: V) -> Result<V::Value, Error> {
            *self.0 = names;
            Err(Error("seen".into()))
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
            tuple_struct map struct identifier ignored_any
        }
    }
    let mut names: &'static [&'static str] = &[];
    let _ = T::deserialize(Names(&mut names));
    names
}

/// The sample of `T` whose outermost variant is `variant` and whose inner ones are the first.
pub fn sample<T: for<'de> Deserialize<'de>>(variant: usize) -> T {
    let mut trace = Trace { fixed: Some(variant), ..Trace::default() };
    T::deserialize(Walk { trace: &mut trace, at: SEED }).expect("a sample of a wire type")
}

/// Walks `T` often enough to have been in every variant.
pub fn walk<T: for<'de> Deserialize<'de>>(trace: &mut Trace) {
    const WALKS: usize = 40_000;
    for _ in 0..WALKS {
        trace.inside.clear();
        if let Err(error) = T::deserialize(Walk { trace, at: SEED }) {
            trace.faults.insert(error.0);
        }
    }
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo).
const SEED: u64 = 0xcbf2_9ce4_8422_2325;
fn hash(at: u64, name: &str) -> u64 {
    name.bytes().chain([b'/']).fold(at, |at, byte| (at ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[derive(Debug)]
pub struct Error(String);
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Error {}
impl de::Error for Error {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

struct Walk<'a> {
    trace: &'a mut Trace,
    /// Where the walk is: a hash of the names that lead here.
    at: u64,
}

impl Walk<'_> {
    fn leaf(&mut self) -> u64 {
        self.trace.leaves += 1;
        self.at >> 40
    }

    /// Goes into the type `name`, unless the walk is inside it already.
    fn inside<T>(self, name: &'static str, go: impl FnOnce(Walk<'_>) -> Result<T, Error>) -> Result<T, Error> {
        if self.trace.inside.contains(&name) {
            return Err(Error(format!("{name} is recursive")));
        }
        self.trace.inside.push(name);
        let at = hash(self.at, name);
        let gone = go(Walk { trace: &mut *self.trace, at });
        self.trace.inside.pop();
        gone
    }
}

macro_rules! leaves {
    ($($function:ident $visit:ident $type:ty),*) => {$(
        fn $function<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.leaf() as $type)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Walk<'_> {
    type Error = Error;

    leaves! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error("a type that is not on the wire: it must say what it is".into()))
    }

    fn deserialize_bool<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.leaf().is_multiple_of(2))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(format!("n{:x}", self.leaf() & 0xfff))
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_byte_buf(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_byte_buf(self.leaf().to_le_bytes()[..3].to_vec())
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        self.leaf();
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.inside(name, |walk| visitor.visit_newtype_struct(walk))
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        self.leaf();
        let (at, before) = (self.at, self.trace.leaves);
        let trace = &mut *self.trace;
        let value = visitor.visit_seq(Parts { trace: &mut *trace, at, names: &["element"] })?;
        if trace.leaves == before {
            return Err(Error(format!("a sequence of elements without bytes in {:?}", trace.inside)));
        }
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        const INDEXES: [&str; 32] = [
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19", "20", "21", "22",
            "23", "24", "25", "26", "27", "28", "29", "30", "31",
        ];
        visitor.visit_seq(Parts { trace: self.trace, at: self.at, names: &INDEXES[..length] })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, name: &'static str, length: usize, visitor: V) -> Result<V::Value, Error> {
        self.inside(name, |walk| walk.deserialize_tuple(length, visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        self.leaf();
        visitor.visit_map(Parts { trace: self.trace, at: self.at, names: &["entry"] })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.inside(name, |walk| visitor.visit_seq(Parts { trace: walk.trace, at: walk.at, names: fields }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.leaf();
        let trace = &mut *self.trace;
        trace.draw = trace.draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = match trace.fixed {
            Some(variant) if trace.inside.is_empty() => variant,
            Some(_) => 0,
            None => (trace.draw >> 33) as usize % variants.len(),
        };
        trace.variants.entry(name).or_insert((variants.len(), BTreeSet::new())).1.insert(index);
        self.inside(name, |walk| {
            let at = hash(walk.at, variants[index]);
            visitor.visit_enum(Variant { walk: Walk { trace: walk.trace, at }, index: index as u32 })
        })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }
}

/// The parts of something: one for each name that is left.
struct Parts<'a> {
    trace: &'a mut Trace,
    at: u64,
    names: &'a [&'static str],
}

impl Parts<'_> {
    fn part<'de, S: DeserializeSeed<'de>>(&mut self, seed: S, name: &str) -> Result<S::Value, Error> {
        seed.deserialize(Walk { trace: &mut *self.trace, at: hash(self.at, name) })
    }
}

impl<'de> de::SeqAccess<'de> for Parts<'_> {
    type Error = Error;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some((name, rest)) = self.names.split_first() else { return Ok(None) };
        self.names = rest;
        self.part(seed, name).map(Some)
    }
}

impl<'de> de::MapAccess<'de> for Parts<'_> {
    type Error = Error;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some((_, rest)) = self.names.split_first() else { return Ok(None) };
        self.names = rest;
        self.part(seed, "key").map(Some)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        self.part(seed, "value")
    }
}

struct Variant<'a> {
    walk: Walk<'a>,
    index: u32,
}

impl<'de, 'a> de::EnumAccess<'de> for Variant<'a> {
    type Error = Error;
    type Variant = Walk<'a>;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Walk<'a>), Error> {
        let index: de::value::U32Deserializer<Error> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self.walk))
    }
}

impl<'de> de::VariantAccess<'de> for Walk<'_> {
    type Error = Error;
    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }
    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_tuple(self, length, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Parts { trace: self.trace, at: self.at, names: fields })
    }
}
