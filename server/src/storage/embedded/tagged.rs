//! The form on the wire that lasts, of everything the store says and hears: the number of a kind, then its fields.

/// Makes an enum whose kinds have fixed numbers, and its codec.
///
/// A number is never given to another kind, and the fields of a kind never change: logs written by an older
/// release, and nodes of two releases side by side, must read each other. What must change becomes a new kind,
/// with the version of the store protocol that knows it first.
macro_rules! tagged {
    (
        $(#[$meta:meta])*
        enum $enum:ident {
            $($(#[$doc:meta])* $tag:literal $name:ident($body:ty), since $since:literal;)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $enum {
            $($(#[$doc])* $name($body),)*
        }

        impl $enum {
            /// The number that names the kind in encoded form.
            #[must_use]
            pub const fn tag(&self) -> u16 {
                match self { $($enum::$name(_) => $tag,)* }
            }

            /// The first version of the store protocol that knows the kind.
            #[must_use]
            pub const fn since(&self) -> u16 {
                match self { $($enum::$name(_) => $since,)* }
            }

            /// The name of the kind, for logs and metrics.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $($enum::$name(_) => stringify!($name),)* }
            }

            /// The value as bytes: the number as a big-endian u16, then the fields.
            ///
            /// # Errors
            /// As [`encode`](althing_cluster::wire::encode).
            pub fn encode(&self) -> Result<bytes::Bytes, althing_cluster::wire::WireError> {
                match self { $($enum::$name(body) => althing_cluster::wire::encode_tagged($tag, body),)* }
            }

            /// Reads a value that takes all of `bytes`.
            ///
            /// # Errors
            /// [`WireError::UnknownKind`](althing_cluster::wire::WireError::UnknownKind) for a kind of a later
            /// release, else a `WireError` for damage.
            pub fn decode(bytes: &[u8]) -> Result<Self, althing_cluster::wire::WireError> {
                let (tag, body) = althing_cluster::wire::split_tag(bytes)?;
                match tag {
                    $($tag => althing_cluster::wire::decode(body).map($enum::$name),)*
                    other => Err(althing_cluster::wire::WireError::UnknownKind(other)),
                }
            }
        }
    };
}

pub(super) use tagged;

/// Checks the golden bytes of every sample and that damage is seen.
#[cfg(test)]
macro_rules! assert_golden {
    ($enum:ident, $samples:expr) => {
        for (golden, value) in $samples {
            let bytes = value.encode().unwrap();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, golden, "{}", value.name());
            assert_eq!($enum::decode(&bytes), Ok(value));
            assert!($enum::decode(&bytes[..bytes.len() - 1]).is_err());
            assert!($enum::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
        assert!($enum::decode(b"").is_err());
        assert_eq!(
            $enum::decode(&[0xff, 0xff, 0]),
            Err(althing_cluster::wire::WireError::UnknownKind(0xffff))
        );
    };
}

#[cfg(test)]
pub(super) use assert_golden;
