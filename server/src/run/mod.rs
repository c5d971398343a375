//! The sub-commands: one file each.

mod admin;
mod demo;
mod load;
mod serve;

pub(crate) use admin::{AdminOptions, GroupCommand, group, groups, status};
pub(crate) use demo::{DemoOptions, demo};
pub(crate) use load::{LoadOptions, load};
pub(crate) use serve::{ServeOptions, serve};
