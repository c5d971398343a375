//! Which groups, slot ranges and voters a data directory was founded with: written at the first start, compared later.
//! A node that joined has no founding voters; who the members are now is the groups' own business.
//!
//! A text file beside the engine's directory, so that a person can read it. Leaves identity to the engine.
//! Invariant: the file is whole or absent (written aside, synced, renamed, directory synced).

use crate::shards::Shards;
use pontoon::NodeId;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "layout.json";
const VERSION: u64 = 1;

/// What a cluster was founded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) groups: u16,
    pub(crate) voters: BTreeSet<NodeId>,
}

/// Why a directory does not fit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("{FILE} in --data cannot be used: {0}")]
    Io(#[from] io::Error),
    #[error("{FILE} in --data is not a layout of this version: {0}")]
    Damaged(String),
    #[error(
        "--data was founded with {found}, now {asked} is asked for: start with the founding values \
         (the number of groups never changes; members change by `pontoon group add` and `remove`, not by --cluster), \
         or found a new cluster in an empty directory"
    )]
    Differs { found: String, asked: String },
}

impl Layout {
    /// What the engine compares between founders: groups and voters as text.
    pub(crate) fn charter(&self) -> String {
        format!("pontoon-server layout {VERSION}: {}", self.describe())
    }

    fn describe(&self) -> String {
        if self.voters.is_empty() {
            return format!("--groups {} by --join", self.groups);
        }
        let voters: Vec<String> = self.voters.iter().map(ToString::to_string).collect();
        format!("--groups {} and voters {}", self.groups, voters.join(","))
    }

    /// Compares with what is written in the directory, if something is.
    pub(crate) fn check(&self, dir: &Path) -> Result<(), LayoutError> {
        match Layout::load(dir)? {
            Some(found) if found != *self => {
                Err(LayoutError::Differs { found: found.describe(), asked: self.describe() })
            }
            _ => Ok(()),
        }
    }

    /// Writes the layout where none is. Called when the founding is complete: a first start with mistaken flags may be
    /// repeated with right ones.
    pub(crate) fn keep(&self, dir: &Path) -> Result<(), LayoutError> {
        match Layout::load(dir)? {
            None => self.store(dir).map_err(LayoutError::Io),
            Some(_) => self.check(dir),
        }
    }

    /// What is written in the directory.
    pub(crate) fn load(dir: &Path) -> Result<Option<Layout>, LayoutError> {
        let text = match fs::read_to_string(dir.join(FILE)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        Layout::parse(&text).map(Some).ok_or(LayoutError::Damaged(text.chars().take(200).collect()))
    }

    fn parse(text: &str) -> Option<Layout> {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        if value["version"] != VERSION {
            return None;
        }
        let groups = u16::try_from(value["groups"].as_u64()?).ok()?;
        let voters = value["voters"].as_array()?.iter().map(|v| v.as_u64().map(NodeId)).collect::<Option<_>>()?;
        Some(Layout { groups, voters })
    }

    fn store(&self, dir: &Path) -> io::Result<()> {
        let shards = Shards::new(self.groups).ok_or_else(|| io::Error::other("no such number of groups"))?;
        let ranges: Vec<_> =
            shards.ranges().map(|(g, a, b)| serde_json::json!({"group": g.0, "slots": [a, b]})).collect();
        let voters: Vec<u64> = self.voters.iter().map(|n| n.0).collect();
        let text = serde_json::json!({"version": VERSION, "groups": self.groups, "voters": voters, "ranges": ranges});
        fs::create_dir_all(dir)?;
        let aside = dir.join(format!("{FILE}.tmp"));
        let mut file = File::create(&aside)?;
        file.write_all(format!("{text:#}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_writes_and_later_ones_compare() {
        let dir = tempfile::tempdir().unwrap();
        let layout = |groups| Layout { groups, voters: [1, 2, 3].map(NodeId).into() };
        layout(48).check(dir.path()).unwrap();
        layout(49).check(dir.path()).unwrap();
        layout(48).keep(dir.path()).unwrap();
        layout(48).keep(dir.path()).unwrap();
        layout(48).check(dir.path()).unwrap();
        let text = layout(49).check(dir.path()).unwrap_err().to_string();
        assert!(text.contains("founded with --groups 48") && text.contains("--groups 49"), "{text}");
        fs::write(dir.path().join(FILE), "{\"version\": 2}").unwrap();
        assert!(matches!(layout(48).check(dir.path()), Err(LayoutError::Damaged(_))));
        assert_ne!(layout(48).charter(), layout(49).charter());
        let joined = Layout { groups: 48, voters: BTreeSet::new() };
        let other = tempfile::tempdir().unwrap();
        joined.keep(other.path()).unwrap();
        assert_eq!(Layout::load(other.path()).unwrap(), Some(joined));
        let text = layout(48).check(other.path()).unwrap_err().to_string();
        assert!(text.contains("founded with --groups 48 by --join"), "{text}");
    }
}
