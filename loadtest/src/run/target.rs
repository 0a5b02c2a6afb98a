//! What a load test is put on: a deployment of its own, or one that runs already.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use futures::future::try_join_all;
use serde::Deserialize;
use tokio::net::lookup_host;

use super::attack::ROOM;
use super::group::places;
use super::scenario::Scenario;
use crate::deployment::{APP, Deployment, Durability, Plan, Topology, auth};
use crate::flood::attack::User;
use crate::flood::proc::{Used, used};
use crate::harness::{HarnessError, find_binary};
use crate::questions::model::Model;

/// How long a page of metrics may take.
const METRICS_MAX: Duration = Duration::from_secs(5);

/// What the load is put on.
#[derive(Clone, Debug, Default, Args)]
pub struct TargetOptions {
    /// The program under test [default: `roomcast` beside this program]
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    pub binary: Option<PathBuf>,
    /// Nodes of a deployment that runs already, such as `http://chat.example:8080`, instead of one of its own
    #[arg(long, value_name = "URL", value_delimiter = ',', requires = "tokens")]
    pub url: Vec<String>,
    /// With --url: a file with an access token on each line, and behind it the user's name where it is no JWT that says it
    #[arg(long, value_name = "FILE", requires = "url")]
    pub tokens: Option<PathBuf>,
    /// With --url: what rooms are called; the user of line i (from 0) must belong to the room of number i mod `rooms`
    #[arg(long, value_name = "PATTERN", default_value = "room-{}")]
    pub room: String,
    /// With --url: what clients call themselves
    #[arg(long, value_name = "TEXT", default_value = APP)]
    pub user_agent: String,
    /// With --url: pages with the metrics of the nodes, such as `http://10.0.0.7:9090/metrics`; without, their CPU and memory are
    /// not measured
    #[arg(long, value_name = "URL", value_delimiter = ',', requires = "url")]
    pub metrics: Vec<String>,
}

/// What a load test is put on.
pub enum Target {
    /// A deployment of its own, and the model that it asks.
    Own(Box<Deployment>, Option<Model>),
    /// One that runs already.
    There(There),
}

/// A deployment that somebody else started.
pub struct There {
    /// CONNECT payloads of the sockets.
    auths: Vec<String>,
    /// The pages, and what each said last.
    metrics: Vec<(String, Used)>,
    http: reqwest::Client,
    /// Nodes that began anew.
    ended: Vec<String>,
}

impl TargetOptions {
    /// Starts what is to be measured, or finds it; and says where its nodes are.
    pub async fn prepare(&self, scenario: &Scenario, dir: &Path) -> Result<(Target, Vec<SocketAddr>), HarnessError> {
        if self.url.is_empty() {
            let model = match scenario.asks() {
                true => Some(Model::start(scenario.model.pace()).await?),
                false => None,
            };
            let deployment = self.start(scenario, model.as_ref(), dir).await?;
            let servers = deployment
                .nodes
                .iter()
                .map(|node| node.url.trim_start_matches("http://").parse());
            let servers = servers.collect::<Result<_, _>>().map_err(io::Error::other)?;
            return Ok((Target::Own(Box::new(deployment), model), servers));
        }
        if !scenario.floods.is_empty() {
            return Err(HarnessError::Setup(
                "--url: leave out floods, which are for a deployment of its own".to_owned(),
            ));
        }
        if scenario.asks() {
            return Err(HarnessError::Setup(
                "--url: leave out questions, whose replies only the scripted model marks".to_owned(),
            ));
        }
        let mut servers = Vec::new();
        for url in &self.url {
            servers.push(resolve(url).await?);
        }
        let file = self.tokens.as_deref().unwrap_or(Path::new(""));
        let there = There {
            auths: read_tokens(file, scenario.sockets(), &self.user_agent)?,
            metrics: self
                .metrics
                .iter()
                .map(|page| (page.clone(), Used::default()))
                .collect(),
            http: reqwest::Client::new(),
            ended: Vec::new(),
        };
        Ok((Target::There(there), servers))
    }

    async fn start(&self, scenario: &Scenario, model: Option<&Model>, dir: &Path) -> Result<Deployment, HarnessError> {
        let binary = find_binary(self.binary.as_deref())?;
        let mut settings = vec![("ROOMCAST_LOG", "warn")];
        if scenario.floods.is_empty() {
            // All clients come from this machine.
            settings.push(("GUARD_ALLOW", "127.0.0.0/8"));
        }
        settings.extend(model.map(|model| ("GPT_BASE_URL", model.url.as_str())));
        let plan = Plan {
            topology: Topology::Standalone,
            durability: Durability::Memory,
            nodes: scenario.nodes,
            // Rooms of groups differ in size: they are made one by one.
            rooms: scenario.rooms,
            users: scenario.sockets() + scenario.attackers(),
            workers: 1,
            proxied: false,
            settings: &settings,
        };
        let deployment = Deployment::start(&plan, &binary, dir).await?;
        make_rooms(scenario, &deployment).await?;
        let attackers: Vec<usize> = users_of_attackers(scenario).map(|user| user as usize).collect();
        if !attackers.is_empty() {
            deployment.create_room(ROOM, &attackers).await?;
        }
        Ok(deployment)
    }
}

/// The users of attackers, after those of everybody else.
fn users_of_attackers(scenario: &Scenario) -> Range<u32> {
    scenario.sockets()..scenario.sockets() + scenario.attackers()
}

/// The rooms of groups, with their members.
async fn make_rooms(scenario: &Scenario, deployment: &Deployment) -> io::Result<()> {
    let mut rooms: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for place in places(&scenario.groups) {
        rooms.entry(place.room).or_default().push(place.user as usize);
    }
    for (room, users) in rooms {
        deployment.create_room(&format!("room-{room}"), &users).await?;
    }
    Ok(())
}

impl Target {
    /// The CONNECT payload of a user.
    pub fn auth(&self, user: u32) -> String {
        match self {
            Self::Own(deployment, _) => {
                auth(&deployment.tokens[user as usize], &format!("user{user}"), APP).to_string()
            }
            Self::There(there) => there.auths[user as usize].clone(),
        }
    }

    /// The users that attackers have.
    pub fn attackers(&self, scenario: &Scenario) -> Vec<User> {
        let Self::Own(deployment, _) = self else {
            return Vec::new();
        };
        let user = |user: u32| User {
            username: format!("user{user}"),
            token: deployment.tokens[user as usize].clone(),
            room: ROOM.to_owned(),
        };
        users_of_attackers(scenario).map(user).collect()
    }

    /// What all nodes have used, where that can be measured.
    pub async fn used(&mut self) -> Result<Option<Used>, HarnessError> {
        match self {
            Self::Own(deployment, _) => {
                let pids: Vec<u32> = deployment.nodes.iter().filter_map(|node| node.process.pid()).collect();
                Ok(Some(used(&pids)?))
            }
            Self::There(there) if there.metrics.is_empty() => Ok(None),
            Self::There(there) => there.used().await.map(Some),
        }
    }

    /// Stops what was started for it; tells of processes that had ended by themselves.
    pub async fn end(self) -> io::Result<Vec<String>> {
        match self {
            Self::Own(mut deployment, _model) => {
                let ended = deployment.unexpected_ends().await?;
                deployment.stop().await?;
                Ok(ended)
            }
            Self::There(there) => Ok(there.ended),
        }
    }
}

impl There {
    async fn used(&mut self) -> Result<Used, HarnessError> {
        // At once, so that all figures are of one moment.
        let pages = self.metrics.iter().map(|(page, _)| self.read(page));
        let now = try_join_all(pages).await?;
        let mut all = Used::default();
        for ((page, last), now) in self.metrics.iter_mut().zip(now) {
            if now.cpu < last.cpu {
                self.ended.push(format!(
                    "{page}: its processor time went back, so the process is another"
                ));
            }
            *last = now;
            all.cpu += now.cpu;
            all.mib += now.mib;
        }
        Ok(all)
    }

    async fn read(&self, page: &str) -> Result<Used, HarnessError> {
        let unfit = |why: &dyn std::fmt::Display| HarnessError::Setup(format!("--metrics {page}: {why}"));
        let asked = self.http.get(page).timeout(METRICS_MAX).send().await;
        let text = match asked.and_then(reqwest::Response::error_for_status) {
            Ok(answer) => answer.text().await.map_err(|error| unfit(&error.without_url()))?,
            Err(error) => return Err(unfit(&error.without_url())),
        };
        parse_metrics(&text)
            .ok_or_else(|| unfit(&"it does not tell both process_cpu_seconds_total and process_resident_memory_bytes"))
    }
}

fn parse_metrics(page: &str) -> Option<Used> {
    let value = |name: &str| -> Option<f64> {
        let mut samples = page.lines().filter_map(|line| line.strip_prefix(name));
        let sample = samples.find(|rest| rest.starts_with([' ', '{']))?;
        // Labels may hold blanks, and a time may stand behind the value.
        let rest = sample.rsplit_once('}').map_or(sample, |(_, rest)| rest);
        let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
        value.is_finite().then_some(value)
    };
    Some(Used {
        cpu: value("process_cpu_seconds_total")?,
        mib: value("process_resident_memory_bytes")? / 1024.0 / 1024.0,
    })
}

async fn resolve(url: &str) -> Result<SocketAddr, HarnessError> {
    let unfit = |why: &dyn std::fmt::Display| HarnessError::Setup(format!("--url {url}: {why}"));
    if url.starts_with("https:") {
        return Err(unfit(
            &"use http: put the load behind what ends TLS, whose cost is its own",
        ));
    }
    let parsed = reqwest::Url::parse(url).map_err(|error| unfit(&error))?;
    let (Some(host), Some(port), "http") = (parsed.host_str(), parsed.port_or_known_default(), parsed.scheme()) else {
        return Err(unfit(&"use an address such as http://chat.example:8080"));
    };
    let found = lookup_host((host, port)).await.map_err(|error| unfit(&error))?;
    // Clients have addresses of IPv4.
    let found = found.into_iter().find(SocketAddr::is_ipv4);
    found.ok_or_else(|| unfit(&"it has no address of IPv4"))
}

fn read_tokens(file: &Path, sockets: u32, user_agent: &str) -> Result<Vec<String>, HarnessError> {
    let unfit = |why: &dyn std::fmt::Display| HarnessError::Setup(format!("--tokens {}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| unfit(&error))?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.len() < sockets as usize {
        return Err(unfit(&format!(
            "{} tokens; the scenario has {sockets} sockets",
            lines.len()
        )));
    }
    let read = |(number, line): (usize, &&str)| {
        let (token, name) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        let name = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
        let name = name.or_else(|| username_of(token));
        // Not the token: it is a secret.
        let name = name.ok_or_else(|| {
            unfit(&format!(
                "line {}: no JWT with a `username`, and no name behind it",
                number + 1
            ))
        })?;
        Ok(auth(token, &name, user_agent).to_string())
    };
    lines.iter().take(sockets as usize).enumerate().map(read).collect()
}

/// What a JWT says of its user's name; whether it holds is the node's business.
fn username_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        username: String,
    }
    let claims = token.split('.').nth(1)?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice::<Claims>(&claims)
        .ok()
        .map(|claims| claims.username)
}

/// The address that a socket comes from: one of many for a server on this machine, else whatever the system chooses.
pub fn source(server: SocketAddr, process: u8, socket: u32) -> Ipv4Addr {
    match server.ip() {
        IpAddr::V4(address) if address.is_loopback() => crate::fleet::source(process, socket),
        _ => Ipv4Addr::UNSPECIFIED,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn names_come_from_tokens_or_stand_behind_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"username":"Ann","exp":1}"#);
        std::fs::write(&file, format!("x.{claims}.y\n\nopaque Bob\n")).unwrap();
        let auths = read_tokens(&file, 2, "App").unwrap();
        assert!(
            auths[0].contains(r#""username":"Ann""#) && auths[1].contains(r#""username":"Bob""#),
            "{auths:?}"
        );
        let few = read_tokens(&file, 3, "App").unwrap_err().to_string();
        assert!(few.contains("2 tokens; the scenario has 3 sockets"), "{few}");
        std::fs::write(&file, "secret\n").unwrap();
        let unnamed = read_tokens(&file, 1, "App").unwrap_err().to_string();
        assert!(unnamed.contains("line 1") && !unnamed.contains("secret\""), "{unnamed}");
    }

    #[tokio::test]
    async fn what_is_no_address_is_named_with_the_cure() {
        assert_eq!(
            resolve("http://127.0.0.1:8080/").await.unwrap(),
            "127.0.0.1:8080".parse().unwrap()
        );
        for (url, cure) in [
            ("https://x", "use http"),
            ("ftp://x", "such as http"),
            ("nonsense", "--url"),
        ] {
            let error = resolve(url).await.unwrap_err().to_string();
            assert!(error.contains(cure) && error.contains(url), "{error}");
        }
    }

    #[test]
    fn metrics_are_read_with_labels_and_times_and_without() {
        let page = "# HELP x\nprocess_cpu_seconds_total{job=\"a } b\"} 2.5 1700000000000\nprocess_resident_memory_bytes 1048576\n";
        assert_eq!(parse_metrics(page), Some(Used { cpu: 2.5, mib: 1.0 }));
        assert_eq!(parse_metrics("up 1\n"), None);
        assert_eq!(parse_metrics(&page.replace("2.5", "NaN")), None);
        assert_eq!(parse_metrics(&page.replace("_bytes", "_bytes_of_another")), None);
    }

    #[tokio::test]
    async fn a_node_that_began_anew_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let page = format!("http://{}/metrics", listener.local_addr().unwrap());
        let times = Arc::new(Mutex::new(vec![3.0, 3.0, 1.0]));
        let answer = move || {
            let seconds = times.lock().unwrap().remove(0);
            let text = format!("process_cpu_seconds_total {seconds}\nprocess_resident_memory_bytes 1048576\n");
            async move { text }
        };
        let pages = axum::Router::new().route("/metrics", axum::routing::get(answer));
        tokio::spawn(async move { axum::serve(listener, pages).await });
        let mut target = Target::There(There {
            auths: Vec::new(),
            metrics: vec![(page.clone(), Used::default())],
            http: reqwest::Client::new(),
            ended: Vec::new(),
        });
        for cpu in [3.0, 3.0, 1.0] {
            assert_eq!(target.used().await.unwrap(), Some(Used { cpu, mib: 1.0 }));
        }
        let ended = target.end().await.unwrap();
        assert!(ended.len() == 1 && ended[0].contains(&page), "{ended:?}");
    }
}
