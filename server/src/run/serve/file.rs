//! The file of `pontoon serve --config`: TOML whose keys are the flags' names, and a table `[engine]`.
//!
//! Leaves to others: whether the values make sense (`options`, the engine). Invariant: every mistake of the file is
//! told, not the first one; a key that is not known is a mistake.

use super::options::Settings;
use pontoon::Config;
use serde::Deserialize;
use std::path::Path;
use toml::{Table, Value};

/// Reads a file; what is wrong with it goes to `problems`.
pub(super) fn read(path: &Path, problems: &mut Vec<String>) -> (Settings, Config) {
    let name = path.display();
    let table = match std::fs::read_to_string(path) {
        Ok(text) => text.parse::<Table>().map_err(|e| format!("--config {name}: {e}")),
        Err(e) => Err(format!("--config {name}: {e}")),
    };
    match table {
        Ok(table) => judge(table, &name.to_string(), problems),
        Err(problem) => {
            problems.push(problem.trim_end().to_owned());
            (Settings::default(), Config::default())
        }
    }
}

fn judge(table: Table, name: &str, problems: &mut Vec<String>) -> (Settings, Config) {
    let (mut settings, mut config) = (Settings::default(), Config::default());
    for (key, value) in table {
        let taken = match (key.as_str(), value) {
            ("engine", Value::Table(engine)) => {
                config = engine_config(engine, name, problems);
                Ok(())
            }
            ("engine", _) => Err("must be a table".to_owned()),
            (key, value) => set(&mut settings, key, value),
        };
        if let Err(problem) = taken {
            problems.push(format!("{name}: {key}: {problem}"));
        }
    }
    (settings, config)
}

fn set(settings: &mut Settings, key: &str, value: Value) -> Result<(), String> {
    if let Some(flag) = settings.flag(key) {
        *flag = value.as_bool().ok_or("must be true or false")?;
        return Ok(());
    }
    let is_list = matches!(key, "cluster" | "join");
    let place = settings.text(key).ok_or("is not known")?;
    *place = Some(match value {
        Value::String(text) => text,
        Value::Integer(n) => n.to_string(),
        Value::Array(items) if is_list => list(items)?,
        _ if is_list => return Err("must be a text or a list of texts".to_owned()),
        _ => return Err("must be a text or a number".to_owned()),
    });
    Ok(())
}

fn list(items: Vec<Value>) -> Result<String, String> {
    let texts: Option<Vec<String>> = items.into_iter().map(|i| i.as_str().map(str::to_owned)).collect();
    texts.map(|t| t.join(",")).ok_or_else(|| "must be a list of texts".to_owned())
}

/// Each value is read alone first, so that all that are wrong are told; the others count.
fn engine_config(engine: Table, name: &str, problems: &mut Vec<String>) -> Config {
    let mut good = Table::new();
    for (path, value) in leaves(&engine) {
        let alone =
            path.iter().rev().fold(value.clone(), |inner, key| Value::Table(Table::from_iter([(key.clone(), inner)])));
        match Config::deserialize(alone) {
            Ok(_) => put(&mut good, &path, value),
            Err(e) => problems.push(format!("{name}: engine.{}: {}", path.join("."), e.message())),
        }
    }
    Config::deserialize(Value::Table(good)).unwrap_or_else(|e| {
        problems.push(format!("{name}: engine: {}", e.message()));
        Config::default()
    })
}

/// Puts a value where its path says, making the tables on the way.
fn put(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => drop(table.insert(key.clone(), value)),
        [key, rest @ ..] => {
            let inner = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

fn leaves(table: &Table) -> Vec<(Vec<String>, Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => found.extend(leaves(inner).into_iter().map(|(mut path, value)| {
                path.insert(0, key.clone());
                (path, value)
            })),
            leaf => found.push((vec![key.clone()], leaf.clone())),
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(text: &str) -> (Settings, Config, Vec<String>) {
        let mut problems = Vec::new();
        let (settings, config) = judge(text.parse().unwrap(), "f", &mut problems);
        (settings, config, problems)
    }

    #[test]
    fn keys_are_the_flags_and_the_engines_fields() {
        let (mut settings, config, problems) = of(r#"
            node = 3
            cluster = ["1=a:1", "2=b:1", "3=c:1"]
            insecure_peers = true
            log_keep = "1MiB"
            [engine]
            admin_timeout = "3s"
            [engine.raft]
            pollers = 2
        "#);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(settings.text("node").unwrap().as_deref(), Some("3"));
        assert_eq!(settings.text("cluster").unwrap().as_deref(), Some("1=a:1,2=b:1,3=c:1"));
        assert!(*settings.flag("insecure_peers").unwrap());
        assert_eq!((config.raft.pollers, config.admin_timeout.get().as_secs()), (2, 3));
    }

    #[test]
    fn every_mistake_is_told() {
        let (_, config, problems) = of(r#"
            nodes = 3
            node = 1.5
            cluster = [1]
            insecure_peers = "yes"
            engin = {}
            [engine]
            balance = 3
            blance = true
            [engine.raft]
            pollers = "two"
            appliers = 2
        "#);
        assert_eq!(config.raft.appliers, 2, "what is right counts");
        for part in [
            "f: nodes: is not known",
            "f: node: must be",
            "f: cluster: must be",
            "f: insecure_peers: must be",
            "f: engin: is not known",
            "engine.balance: ",
            "engine.blance: unknown field",
            "engine.raft.pollers: ",
        ] {
            assert!(problems.iter().any(|p| p.contains(part)), "{part} is not in {problems:#?}");
        }
        assert_eq!(problems.len(), 8, "{problems:#?}");
    }
}
