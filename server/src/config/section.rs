//! One macro makes a section's struct, its defaults and its documentation from the same lines.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What is known of one key: the source of the reference page and of error messages.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key's name inside its section.
    pub name: &'static str,
    /// What kind of value it takes.
    pub kind: Kind,
    /// The least and the greatest value, for numbers that have bounds; at most one entry.
    pub range: &'static [(u64, u64)],
    /// A value to show for a key that has no default; TOML, at most one entry.
    pub example: &'static [&'static str],
    /// As `example`, for a key that most do without: the example file shows it as a comment.
    pub like: &'static [&'static str],
    /// The doc comment, a line an entry.
    pub text: &'static [&'static str],
}

impl Key {
    /// What an operator may write, in words: `whole number from 1 to 100`.
    #[must_use]
    pub fn allowed(&self) -> String {
        let kind = match self.kind {
            Kind::Flag => "true or false".to_owned(),
            Kind::Number => "whole number".to_owned(),
            Kind::Text => "text".to_owned(),
            Kind::Path => "path".to_owned(),
            Kind::Address => "address:port".to_owned(),
            Kind::OneOf(words) => one_of(words),
            Kind::Texts => "list of texts".to_owned(),
            Kind::Addresses => "list of address:port".to_owned(),
            Kind::Tables(keys) => format!("list of tables with {keys}"),
        };
        match self.range.first() {
            Some((low, high)) => format!("{kind} from {low} to {high}"),
            None => kind,
        }
    }
}

fn one_of(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
}

/// The kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A boolean.
    Flag,
    /// A whole number that is not negative.
    Number,
    /// A string.
    Text,
    /// A path in the file system.
    Path,
    /// An IP address and a port.
    Address,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of strings.
    Texts,
    /// A list of IP addresses with ports.
    Addresses,
    /// A list of tables with these keys, in words.
    Tables(&'static str),
}

impl Kind {
    /// Whether the value is written as one string in TOML.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, Kind::Text | Kind::Path | Kind::Address | Kind::OneOf(_))
    }

    /// Whether the value is a list of strings in TOML.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(self, Kind::Texts | Kind::Addresses)
    }
}

/// A Rust type that can stand behind a key.
pub trait Described {
    /// The kind an operator sees.
    const KIND: Kind;
}

macro_rules! described {
    ($($type:ty => $kind:expr),+ $(,)?) => { $(impl Described for $type { const KIND: Kind = $kind; })+ };
}

described! {
    bool => Kind::Flag,
    u16 => Kind::Number,
    u32 => Kind::Number,
    u64 => Kind::Number,
    usize => Kind::Number,
    String => Kind::Text,
    PathBuf => Kind::Path,
    SocketAddr => Kind::Address,
    Vec<String> => Kind::Texts,
    Vec<SocketAddr> => Kind::Addresses,
}

impl<T: Described> Described for Option<T> {
    const KIND: Kind = T::KIND;
}

/// A section of the configuration.
pub trait Section {
    /// The section's name between brackets.
    const NAME: &'static str;
    /// The section's doc comment, a line an entry.
    const ABOUT: &'static [&'static str];
    /// Its keys, in the order of the reference.
    const KEYS: &'static [Key];
}

/// Makes a section: `field: Type = default, in low..=high, example "toml", like "toml";` after a doc comment.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident = $section:literal {
            $(
                $(#[doc = $text:literal])+
                $field:ident : $type:ty = $default:expr
                $(, in $low:literal ..= $high:literal)? $(, example $example:literal)? $(, like $like:literal)? ;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $text])+ pub $field: $type, )+
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $( $field: $default, )+ }
            }
        }

        impl $crate::config::section::Section for $name {
            const NAME: &'static str = $section;
            const ABOUT: &'static [&'static str] = &[$($about),+];
            const KEYS: &'static [$crate::config::section::Key] = &[
                $( $crate::config::section::Key {
                    name: stringify!($field),
                    kind: <$type as $crate::config::section::Described>::KIND,
                    range: &[$(($low, $high))?],
                    example: &[$($example)?],
                    like: &[$($like)?],
                    text: &[$($text),+],
                }, )+
            ];
        }
    };
}

/// Makes an enum whose values are written as words.
macro_rules! words {
    (
        $(#[doc = $about:literal])+
        $name:ident { $( $(#[doc = $text:literal])+ $variant:ident = $word:literal, )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $( $(#[doc = $text])+ #[serde(rename = $word)] $variant, )+
        }

        impl $crate::config::section::Described for $name {
            const KIND: $crate::config::section::Kind =
                $crate::config::section::Kind::OneOf(&[$($word),+]);
        }
    };
}

pub(super) use {section, words};
