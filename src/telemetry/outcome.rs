//! How an operation or a load ended, as a label says it.

use crate::error::Error;

macro_rules! outcomes {
    ($($variant:ident => $name:literal,)+) => {
        /// How an operation or a load ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Outcome {
            $($variant,)+
        }

        impl Outcome {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)+];

            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

outcomes! {
    Ok => "ok",
    Cancelled => "cancelled",
    Authentication => "authentication",
    Cipher => "cipher",
    ClockNotSet => "clock_not_set",
    ClockSkew => "clock_skew",
    Closed => "closed",
    CreationRace => "creation_race",
    Deadline => "deadline",
    ForeignParent => "foreign_parent",
    ForeignRecord => "foreign_record",
    Forked => "forked",
    IndistinctKey => "indistinct_key",
    Interrupted => "interrupted",
    KeyNotFound => "key_not_found",
    KeyRevoked => "key_revoked",
    Kms => "kms",
    MalformedRecord => "malformed_record",
    Memory => "memory",
    Metastore => "metastore",
    NoRuntime => "no_runtime",
    Overloaded => "overloaded",
    Random => "random",
    TooLarge => "too_large",
    Other => "other",
}

impl Outcome {
    pub(crate) fn of<T>(result: &Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(error) => Self::from(error),
        }
    }
}

impl From<&Error> for Outcome {
    fn from(error: &Error) -> Self {
        match error {
            Error::Authentication => Self::Authentication,
            Error::Cipher => Self::Cipher,
            Error::ClockNotSet { .. } => Self::ClockNotSet,
            Error::ClockSkew(_) => Self::ClockSkew,
            Error::Closed => Self::Closed,
            Error::CreationRace(_) => Self::CreationRace,
            Error::Deadline { .. } => Self::Deadline,
            Error::ForeignParent { .. } => Self::ForeignParent,
            Error::ForeignRecord => Self::ForeignRecord,
            Error::Forked => Self::Forked,
            Error::IndistinctKey(_) => Self::IndistinctKey,
            Error::Interrupted { .. } => Self::Interrupted,
            Error::KeyNotFound(_) => Self::KeyNotFound,
            Error::KeyRevoked(_) => Self::KeyRevoked,
            Error::Kms { .. } => Self::Kms,
            Error::MalformedRecord(_) => Self::MalformedRecord,
            Error::Memory(_) => Self::Memory,
            Error::Metastore { .. } => Self::Metastore,
            Error::NoRuntime(_) => Self::NoRuntime,
            Error::Overloaded { .. } => Self::Overloaded,
            Error::Random(_) => Self::Random,
            Error::TooLarge { .. } => Self::TooLarge,
            // Neither ends an operation on a key.
            Error::InvalidConfig { .. } | Error::InvalidPartition { .. } | Error::Persistence { .. } => {
                Self::Other
            }
        }
    }
}
