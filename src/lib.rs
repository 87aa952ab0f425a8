//! vaquita: a small container engine that a device fleet can trust.
//!
//! Modules are layered; each uses only what stands above it in this list, and `tests/layering.rs` holds that to be so.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod sys;

pub mod base64;
pub mod crc;
pub mod digest;
pub mod error;
pub mod json;
pub mod queue;
pub mod reference;
pub mod stream;
pub mod strings;
pub mod time;
pub mod units;

pub mod config;

pub mod oci;

pub mod delta;

pub mod layer;

pub mod container;
pub mod registry;
pub mod store;

pub mod engine;

pub mod cli;
