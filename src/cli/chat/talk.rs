//! One connection: joins, shows what comes, sends one wish after the other.

use std::time::Duration;

use roomcast_load::client::{Client, EmitError, Event, PendingAck};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::session::{Chat, End, Wish, args, who};
use super::view::{Place, View};
use super::words;
use crate::cli::CliError;
use crate::config::ConfigError;

/// Attempts at one wish that the server answers with "later".
const ATTEMPTS_MAX: u32 = 5;
/// When to try again where the server does not say.
const RETRY: Duration = Duration::from_secs(1);
/// How long a script that ends waits to see its own last message come back.
const ECHO_MAX: Duration = Duration::from_secs(2);

/// How long `/who` waits for the room's first update, which the server sends at most once a second.
const PEOPLE_MAX: Duration = Duration::from_secs(2);

/// What waits for an answer.
struct Flight {
    /// `None` while joining.
    wish: Option<Wish>,
    answer: PendingAck,
}

/// The state of one connection.
struct Talk<'a> {
    client: &'a Client,
    joined: bool,
    flight: Option<Flight>,
    attempts: u32,
    not_before: Instant,
    /// The event that was stored last and not yet shown, and until when that is awaited.
    echo: Option<(Place, Instant)>,
    /// Until when `/who` waits for the first word of who is there.
    people_until: Instant,
}

impl Talk<'_> {
    fn echo_until(&self) -> Option<Instant> {
        let (_, until) = self.echo.as_ref()?;
        (*until > Instant::now()).then_some(*until)
    }

    /// When there is something to do although nothing arrives.
    fn wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let times = [Some(self.not_before), self.echo_until(), Some(self.people_until)];
        times.into_iter().flatten().filter(|at| *at > now).min()
    }
}

impl Chat {
    /// Talks until the connection or the chat ends.
    pub async fn talk(&mut self, client: &Client, events: &mut mpsc::Receiver<Event>) -> Result<End, CliError> {
        self.greet();
        let mut talk = Talk {
            client,
            joined: false,
            flight: None,
            attempts: 0,
            not_before: Instant::now(),
            echo: None,
            people_until: Instant::now() + PEOPLE_MAX,
        };
        let mut cut_off = None;
        loop {
            if talk.flight.is_none() && Instant::now() >= talk.not_before && self.take_off(&mut talk).is_err() {
                return Ok(End::Lost);
            }
            let idle = talk.flight.is_none() && talk.joined && self.wishes.is_empty();
            if self.is_leaving() && idle && talk.echo_until().is_none() {
                return Ok(End::Done);
            }
            let wake = talk.wake();
            tokio::select! {
                // Events first: what the join answered is shown before what is sent after it.
                biased;
                event = events.recv() => match event {
                    Some(event) if event.name == "security:notice" => {
                        let args = args(&event);
                        let notice = args.first().unwrap_or(&Value::Null);
                        // A token that ended is no reason to stay away: the next handshake exchanges it.
                        if notice["code"] != "auth_expired" {
                            let notice = words::notice(notice);
                            self.print(&format!("* {notice}"));
                            cut_off = Some(notice);
                        }
                    }
                    Some(event) => {
                        talk.joined &= !self.show(&event);
                        if talk.echo.as_ref().is_some_and(|(place, _)| self.view.has_seen(place)) {
                            talk.echo = None;
                        }
                    }
                    None => {
                        return match cut_off {
                            Some(notice) => Err(CliError::Unavailable(notice)),
                            None => Ok(End::Lost),
                        };
                    }
                },
                answer = answer_of(&mut talk.flight), if talk.flight.is_some() => {
                    let Some(flight) = talk.flight.take() else { continue };
                    match answer {
                        Ok(answer) => {
                            if let Some(end) = self.land(&mut talk, flight.wish, &answer)? {
                                return Ok(end);
                            }
                        }
                        Err(_) => {
                            // It may have arrived or not: again, on a connection that works.
                            self.put_back(flight.wish);
                            return Ok(End::Lost);
                        }
                    }
                }
                open = self.listen() => if !open {
                    self.put_back(talk.flight.take().and_then(|flight| flight.wish));
                    return Ok(End::Done);
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// Sends the join, then one wish at a time: the order of what was typed is kept.
    fn take_off(&mut self, talk: &mut Talk<'_>) -> Result<(), EmitError> {
        while talk.joined {
            let Some(wish) = self.wishes.front().cloned() else {
                return Ok(());
            };
            let room = self.view.room.clone();
            let (event, payload) = match &wish {
                Wish::Say { cid, text } => ("message", json!({ "roomID": room, "message": text, "cid": cid })),
                // What was just said has no number yet, and what was done is shown first.
                Wish::Edit { .. } | Wish::Delete { .. } | Wish::Who | Wish::Join(_) if talk.echo_until().is_some() => {
                    return Ok(());
                }
                Wish::Who if self.people.is_none() && talk.people_until > Instant::now() => return Ok(()),
                Wish::Edit { number, text } => match self.find(*number) {
                    Some(id) => ("editMessage", json!({ "roomID": room, "id": id, "message": text })),
                    None => {
                        self.wishes.pop_front();
                        continue;
                    }
                },
                Wish::Delete { number } => match self.find(*number) {
                    Some(id) => ("deleteMessage", json!({ "roomID": room, "id": id })),
                    None => {
                        self.wishes.pop_front();
                        continue;
                    }
                },
                Wish::Who => {
                    self.wishes.pop_front();
                    let answer = self.people.as_ref().map_or_else(|| "* not known yet".to_owned(), who);
                    self.print(&answer);
                    continue;
                }
                Wish::Join(room) => {
                    let view = View::new(room, &self.credentials.platformid);
                    self.former = Some(std::mem::replace(&mut self.view, view));
                    self.people = None;
                    talk.people_until = Instant::now() + PEOPLE_MAX;
                    self.wishes.pop_front();
                    talk.joined = false;
                    break;
                }
            };
            let answer = talk.client.emit_ack_later(event, &payload)?;
            self.wishes.pop_front();
            talk.flight = Some(Flight {
                wish: Some(wish),
                answer,
            });
            return Ok(());
        }
        let answer = talk.client.emit_ack_later("join", &self.view.join())?;
        talk.flight = Some(Flight { wish: None, answer });
        Ok(())
    }

    /// Deals with an answer; `Some` ends the connection.
    fn land(&mut self, talk: &mut Talk<'_>, wish: Option<Wish>, answer: &Value) -> Result<Option<End>, CliError> {
        if answer["ok"] == true {
            talk.attempts = 0;
            match wish {
                None => {
                    talk.joined = true;
                    if let Some(former) = self.former.take().filter(|former| former.room != self.view.room) {
                        // Without an answer the connection is over, and with it the membership.
                        let _gone = talk.client.emit("leave", &json!({ "roomID": former.room }));
                    }
                }
                Some(_) => {
                    talk.echo = Place::of(answer)
                        .filter(|place| !self.view.has_seen(place))
                        .map(|place| (place, Instant::now() + ECHO_MAX));
                }
            }
            return Ok(None);
        }
        if answer["code"] == "auth_expired" {
            // The next handshake exchanges the tokens.
            self.put_back(wish);
            return Ok(Some(End::Lost));
        }
        let reason = words::failure(answer, &self.view.room);
        let later = answer["retryAfterMs"].as_u64().map(Duration::from_millis);
        talk.attempts += 1;
        if let Some(later) = later.or((answer["code"] == "auth_unavailable").then_some(RETRY))
            && talk.attempts < ATTEMPTS_MAX
        {
            if talk.attempts == 1 {
                self.print(&format!("* {reason}; trying again…"));
            }
            talk.not_before = Instant::now() + later;
            self.put_back(wish);
            return Ok(None);
        }
        talk.attempts = 0;
        if wish.is_none()
            && let Some(former) = self.former.take()
        {
            self.print(&format!("* cannot join: {reason}"));
            // From where it was left: meanwhile nothing of it was shown.
            self.view = former;
            return Ok(None);
        }
        match wish {
            Some(_) => {
                self.print(&format!("* not done: {reason}"));
                Ok(None)
            }
            None if later.is_some() => Err(CliError::Unavailable(format!("cannot join: {reason}"))),
            None => {
                let cure = if self.rooms.is_empty() {
                    "name one of yours".to_owned()
                } else {
                    format!("yours are {}", self.rooms.join(", "))
                };
                Err(ConfigError::new("--room", reason, cure).into())
            }
        }
    }

    /// Shows an event; true when the room must be joined again.
    fn show(&mut self, event: &Event) -> bool {
        let args = args(event);
        let first = args.first().unwrap_or(&Value::Null);
        // Of the room left last there may be something on its way.
        let of = args
            .get(1)
            .filter(|_| event.name == "previousMessages")
            .unwrap_or(first);
        let here = of["roomID"] == self.view.room.as_str();
        match event.name.as_str() {
            "previousMessages" if here => {
                let lines = self.view.previous(first.as_array().map_or(&[], Vec::as_slice), of);
                for line in lines {
                    self.print(&line);
                }
            }
            "message" | "editMessage" | "deleteMessage" if here => {
                if let Some(line) = self.view.live(first) {
                    self.print(&line);
                }
            }
            "sync:lost" => return here,
            "roomUpdate" if here => self.people = Some(first.clone()),
            "token:refresh" => {
                if let Some(token) = first["accessToken"].as_str() {
                    token.clone_into(&mut self.credentials.access_token);
                }
                if let Some(token) = first["refreshToken"].as_str() {
                    token.clone_into(&mut self.credentials.refresh_token);
                }
            }
            "errorMessage" => {
                let reason = words::failure(first, &self.view.room);
                self.print(&format!("* {reason}"));
            }
            _ => {}
        }
        false
    }
}

/// The first argument of the acknowledgement.
async fn answer_of(flight: &mut Option<Flight>) -> Result<Value, EmitError> {
    match flight {
        Some(flight) => {
            let (args, _) = (&mut flight.answer).await?;
            Ok(args.into_iter().next().unwrap_or_default())
        }
        None => std::future::pending().await,
    }
}
