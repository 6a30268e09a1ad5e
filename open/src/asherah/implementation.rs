//! The implementations of Asherah, and in what they differ.

/// Whose configuration it is. The names are the same, and what numbers mean is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Asherah {
    /// Go's, and what is built on it: Python up to 0.3, Node up to 3, cobhan up to 0.5. Times are nanoseconds.
    Go,
    /// Rust's (asherah-ffi), and what is built on it: Python from 0.5, Node from 4. Times are seconds.
    Rust,
}

impl Asherah {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Go => "Go",
            Self::Rust => "Rust",
        }
    }

    pub(super) const fn unit(self) -> Unit {
        match self {
            Self::Go => Unit::Nanoseconds,
            Self::Rust => Unit::Seconds,
        }
    }
}

/// What a number of a time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Nanoseconds,
    Seconds,
    /// It is written beside it, as Go does: `1h30m`.
    Written,
}
