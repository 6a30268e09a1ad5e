//! The life cycle of keys: the tables T1 to T5.
//!
//! [`decide`] is T1 and T5, from facts alone. The [`engine`] carries out what they say, and leaves what they
//! cannot answer from memory to loads: the [`dispatch`]er runs one for all that ask for the same, and the [`loader`]
//! knows what a load does ([`load`] is T2, [`create`] T3 and T4).

mod admission;
pub(crate) mod ahead;
pub(crate) mod back_ends;
pub(crate) mod caches;
pub(crate) mod context;
mod copies;
mod create;
pub(crate) mod decide;
pub(crate) mod dispatch;
pub(crate) mod engine;
mod load;
pub(crate) mod loader;
pub(crate) mod lost;
pub(crate) mod lost_rows;
pub(crate) mod maker;
mod misses;
mod missing;
mod parents;
pub(crate) mod parts;
mod recheck;
mod replica;
mod request;
pub(crate) mod rules;
pub(crate) mod sweep;
mod unwrap;
mod warm;

#[cfg(test)]
mod tests;
