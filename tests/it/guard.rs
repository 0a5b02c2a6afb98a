//! The guard over several nodes: limits that are exact, bans that hold, and nobody who is punished for an outage.

mod bans;
mod limits;

use std::net::IpAddr;

use roomcast::model::Scope;
use roomcast_load::client::{Builder, Client, ConnectError};

use crate::support::World;

/// An address of the loopback network.
fn ip(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 2, last])
}

/// A user's client from this address.
fn from(world: &World, node: usize, user: usize, last: u8) -> Builder {
    world.client(node, user).local_address(ip(last))
}

/// The same, connected.
async fn connect(world: &World, node: usize, user: usize, last: u8) -> Client {
    from(world, node, user, last).connect().await.unwrap()
}

/// The status of a handshake from this address that is refused before the upgrade.
async fn refused_with(world: &World, node: usize, last: u8) -> Option<u16> {
    match from(world, node, 0, last).connect().await {
        Ok(_) => None,
        Err(ConnectError::Http { status, .. }) => Some(status),
        Err(other) => panic!("{other:?}"),
    }
}

/// Breaks a rule from this address, at the first node.
async fn misbehave(world: &World, last: u8) {
    let bad = from(world, 0, 0, last).auth(serde_json::json!({}));
    bad.connect().await.unwrap_err();
}

fn scope(last: u8) -> Scope {
    Scope::address(ip(last))
}
