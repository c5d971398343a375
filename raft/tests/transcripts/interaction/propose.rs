//! Proposals of commands and membership changes (README 3.4).
//!
//! Invariant: errors come in the order arguments, operations, the rule for the old form, the core.

use super::{Env, Outcome};
use crate::datadriven::{Directive, parse_bool};
use bytes::Bytes;
use pontoon_raft::*;

impl Env {
    pub(super) fn propose(&mut self, d: &Directive) -> Outcome {
        let data = Bytes::from(d.key::<String>(1));
        self.call(d.key(0), |node, now| node.propose(now, data)).map(|_| ()).map_err(|e| e.to_string())
    }

    pub(super) fn propose_conf_change(&mut self, d: &Directive) -> Outcome {
        let (mut old_form, mut transition) = (false, ConfChangeTransition::Auto);
        for (arg, value) in d.args[1..].iter().flat_map(|arg| arg.values.iter().map(move |v| (arg, v))) {
            match arg.key.as_str() {
                "v1" => {
                    old_form = parse_bool(value)
                        .ok_or_else(|| format!("strconv.ParseBool: parsing {value:?}: invalid syntax"))?;
                }
                "transition" => transition = parse_transition(value)?,
                other => return Err(format!("unknown command {other}")),
            }
        }
        let changes = parse_operations(&d.input)?;
        let change: ConfChange = if old_form {
            let [change] = changes.as_slice() else { return Err(OLD_FORM.to_owned()) };
            if transition != ConfChangeTransition::Auto {
                return Err(OLD_FORM.to_owned());
            }
            ConfChangeV1 { change: *change, context: Bytes::new() }.into()
        } else {
            ConfChangeV2 { transition, changes, context: Bytes::new() }.into()
        };
        self.call(d.key(0), |node, now| node.propose_conf_change(now, change)).map(|_| ()).map_err(|e| e.to_string())
    }

    /// One line per entry: `data <text>`, or `change <operations>`. All or none are proposed.
    pub(super) fn propose_entries(&mut self, d: &Directive) -> Outcome {
        let entries = d.input.lines().map(parse_entry).collect::<Result<Vec<Entry>, String>>()?;
        self.call(d.key(0), |node, now| node.propose_entries(now, entries)).map(|_| ()).map_err(|e| e.to_string())
    }
}

fn parse_entry(line: &str) -> Result<Entry, String> {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("data", text) => Ok(Entry::normal(Bytes::from(text.to_owned()))),
        ("change", text) => Ok(ConfChangeV2 { changes: parse_operations(text)?, ..ConfChangeV2::default() }.to_entry()),
        (other, _) => Err(format!("unknown entry {other}")),
    }
}

const OLD_FORM: &str = "v1 conf change can only have one operation and no transition";

fn parse_transition(text: &str) -> Result<ConfChangeTransition, String> {
    match text {
        "auto" => Ok(ConfChangeTransition::Auto),
        "implicit" => Ok(ConfChangeTransition::JointImplicit),
        "explicit" => Ok(ConfChangeTransition::JointExplicit),
        other => Err(format!("unknown transition {other}")),
    }
}

/// `v1 l2 r3 u4`, separated by single blanks.
pub fn parse_operations(text: &str) -> Result<Vec<ConfChangeSingle>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    text.trim().split(' ').map(parse_operation).collect()
}

fn parse_operation(token: &str) -> Result<ConfChangeSingle, String> {
    if token.len() < 2 {
        return Err(format!("unknown token {token}"));
    }
    let (kind, id) = token.split_at(token.chars().next().map_or(0, char::len_utf8));
    let kind = match kind {
        "v" => ConfChangeType::AddNode,
        "l" => ConfChangeType::AddLearnerNode,
        "r" => ConfChangeType::RemoveNode,
        "u" => ConfChangeType::UpdateNode,
        _ => return Err(format!("unknown input: {token}")),
    };
    Ok(ConfChangeSingle { kind, id: ReplicaId(parse_id(id)?) })
}

/// As Go's `strconv.ParseUint`, errors included.
fn parse_id(text: &str) -> Result<u64, String> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let why = if is_number { "value out of range" } else { "invalid syntax" };
    let id = if is_number { text.parse().ok() } else { None };
    id.ok_or_else(|| format!("strconv.ParseUint: parsing {text:?}: {why}"))
}
