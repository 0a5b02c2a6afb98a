//! What the fuzz targets are fed with: JSON that is nearly what a handler expects, whole or damaged.
//!
//! Random bytes hardly ever get past a JSON parser. These values do: names and values that mean something here, in every
//! combination, repeated, escaped and nested.

use bolero::{Driver, TypeGenerator};

/// Field names: those of the contract, those the server writes, and those that trip parsers up.
const NAMES: &[&str] = &[
    "roomID",
    "roomId",
    "message",
    "id",
    "_id",
    "platformid",
    "platformId",
    "username",
    "timestamp",
    "lastmessage",
    "createdAt",
    "oldmessage",
    "type",
    "from",
    "to",
    "rooms",
    "gpt",
    "cid",
    "seq",
    "ts",
    "epoch",
    "kind",
    "rev",
    "clientTimestamp",
    "accessToken",
    "refreshToken",
    "userAgent",
    "proto",
    "resume",
    "mine",
    "__proto__",
    "",
];
/// Values in JSON, of every kind that somebody may send for them.
const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "7",
    "-1",
    "1.50",
    "1e400",
    "9007199254740993",
    "1764000000000",
    "\"\"",
    "\"p0\"",
    "\"p1\"",
    "\"user0\"",
    "\"USER0\"",
    "\"room-0\"",
    "\"a{b}\"",
    "\"@gpt hi\"",
    "\"gap\"",
    "\"5-2\"",
    "\"1764000000000\"",
    "\"2025-11-24T16:00:00.500Z\"",
    "\"9999-99-99T99:99:99Z\"",
    "\"2025-11-24\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"\\u0000\"",
    "\"\\\"}{\\\\\"",
    "\"\u{202e}\u{7f}\"",
    "{}",
    "[]",
    "[{}]",
];
/// What most events need; half of the objects begin with it, so that they get past the first check.
const NEEDED: &str = r#""roomID":"room-0","roomId":"room-0","message":"hi","id":"5-2","platformid":"p0""#;
/// Nesting on purpose reaches just beyond what is allowed (64), and beyond what serde_json takes (128).
const DEPTHS: &[usize] = &[62, 63, 64, 65, 126, 127, 128, 200];

/// One of `all`.
pub fn pick<'a, T, D: Driver>(all: &'a [T], driver: &mut D) -> Option<&'a T> {
    all.get(usize::from(driver.produce::<u8>()?) % all.len())
}

/// A JSON object as text.
#[derive(Debug, Clone)]
pub struct Object(pub String);

impl TypeGenerator for Object {
    fn generate<D: Driver>(driver: &mut D) -> Option<Self> {
        let mut out = String::new();
        write_object(driver, &mut out, 3)?;
        Some(Self(out))
    }
}

/// Text that once was JSON, with a few characters gone, doubled or replaced.
#[derive(Debug, Clone)]
pub struct Damaged(pub String);

impl TypeGenerator for Damaged {
    fn generate<D: Driver>(driver: &mut D) -> Option<Self> {
        let Object(mut text) = driver.produce()?;
        for _ in 0..driver.produce::<u8>()? % 4 {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let Some(at) = places.get(usize::from(driver.produce::<u16>()?) % places.len().max(1)) else {
                break;
            };
            match driver.produce::<u8>()? % 4 {
                0 => drop(text.remove(*at)),
                1 => text.truncate(*at),
                2 => text.insert(*at, driver.produce()?),
                _ => text.insert(
                    *at,
                    *pick(&['"', '\\', '{', '}', '[', ']', ',', ':', '\u{1e}', '\0'], driver)?,
                ),
            }
        }
        Some(Self(text))
    }
}

fn write_object<D: Driver>(driver: &mut D, out: &mut String, depth: u8) -> Option<()> {
    let fields = match driver.produce::<u8>()? {
        // More than an object may have.
        0 => 130,
        number => number % 12,
    };
    out.push('{');
    let begun = driver.produce::<bool>()?;
    if begun {
        out.push_str(NEEDED);
    }
    for index in 0..fields {
        if begun || index > 0 {
            out.push_str(pick(&[",", " , "], driver)?);
        }
        write_name(driver, out)?;
        out.push_str(pick(&[":", " :\t"], driver)?);
        write_value(driver, out, depth)?;
    }
    out.push('}');
    Some(())
}

fn write_name<D: Driver>(driver: &mut D, out: &mut String) -> Option<()> {
    let random: String;
    let name = match driver.produce::<u8>()? % 8 {
        0 => {
            random = driver.produce()?;
            random.as_str()
        }
        1 => {
            // The same name in another spelling, which only a parser can tell.
            let name = pick(NAMES, driver)?;
            out.push('"');
            for unit in name.encode_utf16() {
                out.push_str(&format!("\\u{unit:04x}"));
            }
            out.push('"');
            return Some(());
        }
        _ => pick(NAMES, driver)?,
    };
    out.push_str(&serde_json::Value::from(name).to_string());
    Some(())
}

fn write_value<D: Driver>(driver: &mut D, out: &mut String, depth: u8) -> Option<()> {
    match driver.produce::<u8>()? % 16 {
        0 => out.push_str(&serde_json::Value::from(driver.produce::<String>()?).to_string()),
        1 if depth > 0 => write_object(driver, out, depth - 1)?,
        2 if depth > 0 => {
            out.push('[');
            for index in 0..driver.produce::<u8>()? % 4 {
                if index > 0 {
                    out.push(',');
                }
                write_object(driver, out, depth - 1)?;
            }
            out.push(']');
        }
        3 if driver.produce::<u8>()? < 16 => {
            let deep = *pick(DEPTHS, driver)?;
            out.push_str(&"[".repeat(deep));
            out.push_str(&"]".repeat(deep));
        }
        _ => out.push_str(pick(VALUES, driver)?),
    }
    Some(())
}
