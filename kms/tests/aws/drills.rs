//! Drills: a region is in trouble, while a service writes and reads through all of claviger.

mod forgery;
mod outages;
mod requests;
mod world;
