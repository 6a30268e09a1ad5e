//! Metastores in SQL databases: [`store`] is all of them, [`read`] and [`write`] say what is done, and each
//! dialect has its statements, its faults and its checks.

#[cfg(feature = "_server")]
mod abandoned;
#[cfg(feature = "_server")]
mod connections;
#[cfg(feature = "_server")]
mod dialect;
mod driver;
mod error;
mod fault;
mod folded;
#[cfg(feature = "_server")]
mod hosts;
#[cfg(feature = "_server")]
mod look;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
mod read;
mod rows;
#[cfg(feature = "_server")]
mod sessions;
#[cfg(feature = "_server")]
mod settings;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
mod statements;
mod store;
#[cfg(feature = "_server")]
mod url;
mod write;

pub use driver::DriverFault;
pub use fault::SqlFault;
#[cfg(feature = "postgres")]
pub(crate) use fault::UNFOLD;
pub(crate) use fault::{
    ID_CHARS_MAX, LISTED_ID_BYTES_MAX, RECORD_BYTES_MAX, UNFOLD_OR_READ, check_id, checked_json,
};
pub(crate) use folded::FoldedIds;

#[cfg(test)]
mod tests;
