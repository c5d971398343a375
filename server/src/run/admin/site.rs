//! The cluster as its admin endpoints show it: which nodes there are, where their endpoints are, who leads a group.
//!
//! Leaves to others: what is done there. Invariant: every look is bounded; a node that does not answer is left out, and
//! who asked for all of them is told.

use crate::admin_client::{AdminClient, Answer, NoAnswer};
use crate::advert::Advert;
use crate::cli::Failure;
use serde_json::Value;
use std::collections::BTreeMap;

/// Groups on a page.
const PAGE: usize = 1000;

/// What one node said of the cluster.
pub(super) struct Site {
    pub(super) client: AdminClient,
    /// The node that was asked.
    pub(super) asked: u64,
    /// Its cluster.
    pub(super) cluster: Value,
    /// Addresses of each node, as far as told.
    pub(super) nodes: BTreeMap<u64, Advert>,
    /// Links of the node that was asked.
    pub(super) links: BTreeMap<u64, String>,
}

impl Site {
    /// Asks one node.
    pub(super) async fn survey(client: AdminClient, addr: &str) -> Result<Site, Failure> {
        let node = look(&client, addr, "/node").await?;
        let peers = look(&client, addr, "/peers").await?;
        let asked = node["node"].as_u64().ok_or_else(|| strange(addr))?;
        // The address that was given is known to work; an advert's may be for others.
        let own = Advert { admin: addr.to_owned(), ..advert(&node["advert"]).unwrap_or_default() };
        let mut site =
            Site { client, asked, cluster: node["cluster"].clone(), nodes: BTreeMap::new(), links: BTreeMap::new() };
        for peer in peers["peers"].as_array().into_iter().flatten() {
            let Some(id) = peer["node"].as_u64() else { continue };
            site.links.insert(id, peer["link"].as_str().unwrap_or("unknown").to_owned());
            site.nodes.insert(id, advert(&peer["advert"]).unwrap_or_default());
        }
        site.nodes.insert(asked, own);
        Ok(site)
    }

    /// A node's admin address, if it told one.
    pub(super) fn admin(&self, node: u64) -> Option<&str> {
        self.nodes.get(&node).map(|a| a.admin.as_str()).filter(|a| !a.is_empty())
    }

    /// What each node says under a path; nodes that do not answer are left out.
    pub(super) async fn ask_all(&self, path: &str) -> BTreeMap<u64, Value> {
        let mut said = BTreeMap::new();
        for node in self.nodes.keys() {
            let Some(addr) = self.admin(*node) else { continue };
            if let Ok(Answer { status: 200, body }) = self.client.get(addr, path).await {
                said.insert(*node, serde_json::from_str(&body).unwrap_or_default());
            }
        }
        said
    }

    /// All groups of the cluster: of each the word of its leader, else of the highest term.
    pub(super) async fn groups(&self) -> BTreeMap<u64, Value> {
        let mut best: BTreeMap<u64, Value> = BTreeMap::new();
        for node in self.nodes.keys() {
            for row in self.groups_of(*node).await {
                let Some(id) = row["group"].as_u64() else { continue };
                let rank = |v: &Value| (v["term"].as_u64(), v["role"] == "leader");
                if best.get(&id).is_none_or(|known| rank(known) < rank(&row)) {
                    best.insert(id, row);
                }
            }
        }
        best
    }

    async fn groups_of(&self, node: u64) -> Vec<Value> {
        let Some(addr) = self.admin(node) else { return Vec::new() };
        let (mut rows, mut after) = (Vec::new(), 0);
        loop {
            let Ok(answer) = self.client.get(addr, &format!("/groups?limit={PAGE}&after={after}")).await else {
                return rows;
            };
            let page = answer.json();
            rows.extend(page["groups"].as_array().cloned().unwrap_or_default());
            match page["next"].as_u64().filter(|next| *next > after) {
                Some(next) => after = next,
                None => return rows,
            }
        }
    }

    /// A group as its leader shows it, else as any node that has it.
    pub(super) async fn group(&self, id: u64) -> Option<Value> {
        let said = self.ask_all(&format!("/groups/{id}")).await;
        said.into_values().max_by_key(|v| (v["term"].as_u64(), v["role"] == "leader"))
    }
}

async fn look(client: &AdminClient, addr: &str, path: &str) -> Result<Value, Failure> {
    let answer = client.get(addr, path).await.map_err(|e: NoAnswer| Failure::Unreachable(e.to_string()))?;
    match (answer.status, answer.json()) {
        (200, body) if body.is_object() => Ok(body),
        (_, body) => match body["error"].as_str() {
            Some(error) => Err(Failure::Failed(format!("{addr}: {error}"))),
            None => Err(strange(addr)),
        },
    }
}

fn strange(addr: &str) -> Failure {
    Failure::Failed(format!("{addr} is no admin endpoint of a node"))
}

fn advert(value: &Value) -> Option<Advert> {
    Advert::decode(value.as_str()?.as_bytes())
}
