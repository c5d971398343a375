//! A key-value store as a kind of groups.
//!
//! Its commands are in `command`; the machine and its storage follow.

mod command;

pub use command::{BadCommand, KvCommand, KvResponse, When};
