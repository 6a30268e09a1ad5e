//! Hostile surroundings.

mod streams;
