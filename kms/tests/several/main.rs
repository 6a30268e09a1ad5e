//! Several services at once.

mod any_of;
mod contracts;
mod k_of_n;
mod nested;
mod refused;
mod support;
mod told;
