//! The kinds of transcripts: sub-folders, and who answers the files in them.

use crate::datadriven::Runner;
use crate::{confchange, interaction, quorum, window};

/// Makes a runner as it is at the start of a file.
pub type NewRunner = fn() -> Box<dyn Runner>;

/// All of them; `window/` is of our own.
pub const KINDS: [(&str, NewRunner); 4] = [
    ("interaction", || Box::new(interaction::Env::new())),
    ("quorum", || Box::new(quorum::Quorum)),
    ("confchange", || Box::new(confchange::ConfChanges::new())),
    ("window", || Box::new(window::Windows::new())),
];
