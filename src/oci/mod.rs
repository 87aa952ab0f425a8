//! The documents of the OCI image spec and of Docker's schema 2: descriptors, manifests, indexes, artifacts, image configurations,
//! platforms. Types and pure functions; nothing here does I/O or knows a registry, a store or a container.

pub mod archive;
pub mod artifact;
pub mod change;
pub mod child;
pub mod config;
pub mod manifest;
pub mod platform;
