//! Handshakes one after the other, by websocket and by polling.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;

use super::super::kind::Kind;
use super::{Attack, wire};

/// Distinct addresses come from the range for benchmarks, which has 131 072 of them.
const RANGE: u32 = u32::from_be_bytes([198, 18, 0, 0]);

/// Does every `step`th handshake, beginning with `number`.
pub async fn flood(attack: Arc<Attack>, number: usize, step: usize) {
    if attack.kind == Kind::Banned && number == 0 {
        earn_block(&attack).await;
    }
    let (websocket, polling) = (wire::websocket(attack.target, None), wire::polling(attack.target, None));
    let mut turn = number;
    while attack.goes_on() {
        let source = attack.source(turn);
        if attack.kind == Kind::Addresses {
            let (first, count) = attack.addresses;
            let address = Ipv4Addr::from(RANGE + first + turn as u32 % count);
            strike(&attack, turn, source, address).await;
        } else {
            // By the worker, not by the turn: the step is even.
            let request = if number.is_multiple_of(2) { &websocket } else { &polling };
            wire::open(attack.target, source, request, &attack.tally).await;
        }
        turn += step;
    }
}

/// Every second address also earns itself a block.
async fn strike(attack: &Attack, turn: usize, source: Ipv4Addr, address: Ipv4Addr) {
    let request = wire::websocket(attack.target, Some(address));
    let opened = wire::open(attack.target, source, &request, &attack.tally).await;
    if let Some(mut opened) = opened
        && turn.is_multiple_of(2)
        && opened.stream.write_all(&wire::text_frame("40{}")).await.is_ok()
    {
        // The answer must be awaited: a reset would overtake the packet.
        wire::wait_for(&mut opened, "40", "44").await;
    }
}

/// A CONNECT without tokens is no client of ours.
async fn earn_block(attack: &Attack) {
    let request = wire::websocket(attack.target, None);
    let opened = wire::open(attack.target, attack.source(0), &request, &attack.tally).await;
    if let Some(mut opened) = opened
        && opened.stream.write_all(&wire::text_frame("40{}")).await.is_ok()
    {
        wire::wait_for(&mut opened, "40", "44").await;
    }
}
