//! Configuration as people write it: units, defaults, and every mistake at once.
#![allow(clippy::unwrap_used)]

use pontoon::Config;
use pontoon::config::{Size, Span};
use std::time::Duration;

#[test]
fn the_default_runs_and_survives_a_round_trip() {
    let config = Config::default();
    assert!(config.violations().is_empty());
    let text = toml::to_string(&config).unwrap();
    assert!(text.contains("request_timeout = \"10s\"") && text.contains("max_command = \"8MiB\""), "{text}");
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
    assert_eq!(toml::from_str::<Config>("").unwrap(), config, "what is not said is the default");
}

#[test]
fn units_are_read() {
    let text =
        "request_timeout = \"250ms\"\n[raft]\nlog_keep = \"1GiB\"\ntick = \"50ms\"\n[log]\nlive_limit = \"16GiB\"";
    let config: Config = toml::from_str(text).unwrap();
    assert_eq!(config.request_timeout.get(), Duration::from_millis(250));
    assert_eq!((&config.raft.log_keep, &config.raft.tick), (&Size::mib(1024), &Span::millis(50)));
    assert!(config.violations().is_empty());
}

#[test]
fn every_wrong_unit_at_once_with_its_path_and_a_hint() {
    let text = "request_timeout = 10\n[raft]\nlog_keep = \"64Mb\"\ntick = \"fast\"\nsnapshot_rate = \"99999999999GiB\"";
    let violations = toml::from_str::<Config>(text).unwrap().violations();
    for (path, hint) in [
        ("request_timeout: ", "\"10ms\""),
        ("raft.log_keep: ", "\"64MiB\""),
        ("raft.tick: ", "whole number"),
        ("raft.snapshot_rate: ", "too large"),
    ] {
        assert!(violations.iter().any(|v| v.starts_with(path) && v.contains(hint)), "{path}{hint}: {violations:#?}");
    }
    assert_eq!(violations.len(), 4);
}

#[test]
fn every_wrong_value_at_once() {
    let text = "[raft]\npollers = 0\nappliers = 1000\nelection_ticks = 2\n[log]\nlive_limit = \"1MiB\"";
    let violations = toml::from_str::<Config>(text).unwrap().violations();
    for part in ["raft.pollers", "raft.appliers", "raft.election_ticks", "log.live_limit"] {
        assert!(violations.iter().any(|v| v.contains(part)), "{part}: {violations:#?}");
    }
}

#[test]
fn unknown_keys_are_refused() {
    let error = toml::from_str::<Config>("[raft]\npolers = 2").unwrap_err().to_string();
    assert!(error.contains("polers") && error.contains("pollers"), "{error}");
}
