//! The sub-commands: one file each.

mod demo;
mod serve;

pub(crate) use demo::{DemoOptions, demo};
pub(crate) use serve::{ServeOptions, serve};
