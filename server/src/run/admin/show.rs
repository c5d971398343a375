//! `pontoon status` and `pontoon groups`, and what `pontoon group show` prints.

use super::site::Site;
use super::table::{Table, cell};
use super::{AdminOptions, Output, blocking, print};
use crate::cli::Failure;
use serde_json::{Value, json};

/// All nodes: exit code 1 if one does not answer or is not ready.
pub(crate) fn status(options: &AdminOptions) -> Result<(), Failure> {
    blocking(async {
        let site = Site::survey(options.client()?, &options.admin).await?;
        let said = site.ask_all("/node").await;
        let rows: Vec<Value> = site.nodes.keys().map(|id| node_row(&site, *id, said.get(id))).collect();
        let unwell: Vec<String> =
            rows.iter().filter(|r| r["ready"] != true).map(|r| format!("node {}", r["node"])).collect();
        match options.output {
            Output::Json => print(&format!("{:#}", json!({ "cluster": site.cluster, "nodes": rows }))),
            Output::Table => {
                print(&format!("cluster {}, as node {} sees it\n", cell(&site.cluster), site.asked));
                let columns = ["node", "redis", "admin", "link", "ready", "groups", "led", "leaderless", "quarantined"];
                print(&columns_of(&columns, &rows));
            }
        }
        let what = || Failure::Failed(format!("not ready, or no answer: {}", unwell.join(", ")));
        if unwell.is_empty() { Ok(()) } else { Err(what()) }
    })
}

fn node_row(site: &Site, id: u64, said: Option<&Value>) -> Value {
    let health = said.map(|s| s["health"].clone()).unwrap_or_default();
    let advert = site.nodes.get(&id).cloned().unwrap_or_default();
    let link = if id == site.asked { "self" } else { site.links.get(&id).map_or("unknown", String::as_str) };
    json!({
        "node": id,
        "redis": advert.redis,
        "admin": advert.admin,
        "link": link,
        "ready": health["ready"],
        "groups": health["groups"],
        "led": health["led"],
        "leaderless": health["leaderless"],
        "quarantined": health["quarantined"],
    })
}

/// All groups.
pub(crate) fn groups(options: &AdminOptions) -> Result<(), Failure> {
    blocking(async {
        let site = Site::survey(options.client()?, &options.admin).await?;
        let rows: Vec<Value> = site.groups().await.into_values().collect();
        match options.output {
            Output::Json => print(&format!("{:#}", json!({ "groups": rows }))),
            Output::Table => {
                let columns =
                    ["group", "kind", "leader", "term", "commit", "applied", "voters", "learners", "changing"];
                print(&columns_of(&columns, &rows));
            }
        }
        Ok(())
    })
}

/// One group with its members.
pub(super) fn group(id: u64, found: Option<&Value>, output: Output) -> Result<(), Failure> {
    let Some(g) = found else { return Err(Failure::Failed(format!("no node that answers has group {id}"))) };
    match output {
        Output::Json => print(&format!("{g:#}")),
        Output::Table => print(&whole(g)),
    }
    Ok(())
}

fn whole(g: &Value) -> String {
    let line = |name: &str, value: &Value| format!("{name:12} {}\n", cell(value));
    let names = ["group", "kind", "leader", "term", "commit", "applied", "first", "last", "log_bytes", "conf_index"];
    let mut text: String = names.iter().map(|n| line(n, &g[*n])).collect();
    if let Some(change) = g["reconfigure"].as_object() {
        let (voters, learners) = (cell(&change["voters"]), cell(&change["learners"]));
        text.push_str(&format!("changing     to voters {voters}, learners {learners}: {}\n", change["phase"]));
    }
    let rows: Vec<Value> = g["members"].as_array().into_iter().flatten().map(|m| member(g, m)).collect();
    format!("{text}\n{}", columns_of(&["replica", "node", "vote", "match", "behind", "state", "active"], &rows))
}

fn member(g: &Value, m: &Value) -> Value {
    let is = |list: &Value| list.as_array().is_some_and(|l| l.contains(&m["node"]));
    let vote = if is(&g["voters"]) {
        "voter"
    } else if is(&g["learners"]) {
        "learner"
    } else {
        "leaving"
    };
    let mut row = json!({ "replica": m["replica"], "node": m["node"], "vote": vote });
    let follower = g["followers"].as_array().into_iter().flatten().find(|f| f["replica"] == m["replica"]);
    if m["node"] == g["leader"] {
        row["state"] = json!("leader");
    } else if let Some(f) = follower {
        let behind = g["last"].as_u64().zip(f["match"].as_u64()).map(|(last, matched)| last.saturating_sub(matched));
        row["match"] = f["match"].clone();
        row["behind"] = json!(behind);
        row["state"] = f["state"].clone();
        row["active"] = f["recent_active"].clone();
    }
    row
}

fn columns_of(columns: &[&str], rows: &[Value]) -> String {
    let header: Vec<String> = columns.iter().map(|c| c.to_uppercase()).collect();
    let mut table = Table::new(&header.iter().map(String::as_str).collect::<Vec<_>>());
    rows.iter().for_each(|r| table.row(columns.iter().map(|c| cell(&r[*c])).collect()));
    table.text()
}
