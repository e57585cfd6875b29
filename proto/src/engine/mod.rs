//! The sans-IO mesh engine.
pub mod config;
pub mod event;
