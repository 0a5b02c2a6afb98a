//! How an agent and who leads it prove to each other that they know one secret, which itself is never sent.
//!
//! Each sends a random nonce and answers with the HMAC (RFC 2104, SHA-256) of both nonces and of its own part in the talk, so
//! that neither can be made to say what the other has to say. An agent that does not prove itself is given no tokens.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt as _};

use super::line::read_line;
use crate::harness::HarnessError;

/// The variable that holds the secret where no file does.
pub const VARIABLE: &str = "ROOMCAST_LOAD_SECRET";
/// Longest line of the proof, bytes.
const LINE_MAX: u64 = 1024;
/// Shortest secret, bytes.
const SECRET_MIN: usize = 16;

/// What those who lead and agents both know.
#[derive(Clone, Debug, Default, Args)]
pub struct SecretOptions {
    /// A file with the secret that agents and who leads them share, at least 16 bytes; without, the variable
    /// ROOMCAST_LOAD_SECRET holds it
    #[arg(long, value_name = "FILE", env = "ROOMCAST_LOAD_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
}

/// A shared secret.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// Who says something: its word is no good for the other.
#[derive(Clone, Copy)]
enum Side {
    Leader,
    Agent,
}

#[derive(Serialize, Deserialize)]
struct Challenge {
    nonce: String,
}

/// What who leads says of itself.
#[derive(Serialize, Deserialize)]
pub struct Request {
    nonce: String,
    /// The run that it leads: an agent serves one at a time.
    pub run: String,
    proof: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Proof(String),
    Refused(String),
}

impl SecretOptions {
    /// The secret, which must be there.
    pub fn read(&self) -> Result<Secret, HarnessError> {
        self.choose(std::env::var_os(VARIABLE))
    }

    fn choose(&self, variable: Option<std::ffi::OsString>) -> Result<Secret, HarnessError> {
        match (&self.secret_file, variable) {
            (Some(file), _) => read_secret(file),
            (None, Some(secret)) => check(secret.as_encoded_bytes(), VARIABLE),
            (None, None) => Err(HarnessError::Setup(format!(
                "--secret-file: name a file with the secret that agents and who leads them share, such as `openssl rand -hex 32` \
                 makes, or set {VARIABLE}"
            ))),
        }
    }
}

fn read_secret(file: &Path) -> Result<Secret, HarnessError> {
    let name = format!("--secret-file {}", file.display());
    let secret = std::fs::read(file).map_err(|error| HarnessError::Setup(format!("{name}: {error}")))?;
    check(&secret, &name)
}

fn check(secret: &[u8], from: &str) -> Result<Secret, HarnessError> {
    let secret = secret.trim_ascii();
    if secret.len() < SECRET_MIN {
        let found = secret.len();
        return Err(HarnessError::Setup(format!(
            "{from}: {found} bytes; use at least {SECRET_MIN}"
        )));
    }
    Ok(Secret(secret.to_vec()))
}

impl Secret {
    fn mac(&self, side: Side, what: [&str; 3]) -> io::Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(io::Error::other)?;
        mac.update(match side {
            Side::Leader => b"leader",
            Side::Agent => b"agent.",
        });
        for text in what {
            // With lengths, so that nothing can move from one to the next.
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        }
        Ok(mac)
    }

    fn proof(&self, side: Side, what: [&str; 3]) -> io::Result<String> {
        Ok(hex(&self.mac(side, what)?.finalize().into_bytes()))
    }

    fn is_proof(&self, side: Side, what: [&str; 3], proof: &str) -> io::Result<bool> {
        let proof = unhex(proof).unwrap_or_default();
        // In constant time.
        Ok(self.mac(side, what)?.verify_slice(&proof).is_ok())
    }
}

/// A random word that nobody guesses.
pub fn nonce() -> String {
    hex(&rand::random::<[u8; 32]>())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let (pairs, rest) = (digits.as_ref()?.chunks_exact(2), text.len() % 2);
    (rest == 0).then(|| pairs.map(|two| (two[0] * 16 + two[1]) as u8).collect())
}

/// The agent's side: `take` gives a place to who proved itself, or says why there is none.
pub async fn let_in<T>(
    stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin),
    secret: &Secret,
    take: impl FnOnce(&str) -> Result<T, String>,
) -> io::Result<T> {
    let own = nonce();
    say(stream, &Challenge { nonce: own.clone() }).await?;
    let request: Request = hear(stream).await?;
    let what = [own.as_str(), &request.nonce, &request.run];
    let taken = if secret.is_proof(Side::Leader, what, &request.proof)? {
        take(&request.run)
    } else {
        Err("it has another secret".to_owned())
    };
    match taken {
        Ok(place) => {
            say(stream, &Answer::Proof(secret.proof(Side::Agent, what)?)).await?;
            Ok(place)
        }
        Err(why) => {
            let refused = io::Error::other(format!("refused: {why}"));
            say(stream, &Answer::Refused(why)).await?;
            Err(refused)
        }
    }
}

/// The side of who leads `run`; an error says what is wrong with the agent.
pub async fn enter(
    stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin),
    secret: &Secret,
    run: &str,
) -> io::Result<()> {
    let theirs: Challenge = hear(stream).await?;
    let own = nonce();
    let what = [theirs.nonce.as_str(), &own, run];
    let request = Request {
        proof: secret.proof(Side::Leader, what)?,
        nonce: own.clone(),
        run: run.to_owned(),
    };
    say(stream, &request).await?;
    match hear(stream).await? {
        Answer::Proof(proof) if secret.is_proof(Side::Agent, what, &proof)? => Ok(()),
        Answer::Proof(_) => Err(io::Error::other("it does not know the secret, and is given nothing")),
        Answer::Refused(why) => Err(io::Error::other(why)),
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), what: &impl Serialize) -> io::Result<()> {
    let line = format!("{}\n", serde_json::to_string(what)?);
    stream.write_all(line.as_bytes()).await?;
    stream.flush().await
}

async fn hear<T: DeserializeOwned>(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<T> {
    let line = read_line(stream, LINE_MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{BufReader, duplex};

    use super::*;

    fn secret(text: &str) -> Secret {
        check(text.as_bytes(), "x").unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_proof_is_good_for_its_side_its_nonces_and_its_run_alone() {
        let (one, other) = (secret("one secret of sixteen"), secret("another of sixteen."));
        let proof = one.proof(Side::Leader, ["ab", "c", "run"]).unwrap();
        assert!(one.is_proof(Side::Leader, ["ab", "c", "run"], &proof).unwrap());
        assert!(!one.is_proof(Side::Agent, ["ab", "c", "run"], &proof).unwrap());
        assert!(!one.is_proof(Side::Leader, ["a", "bc", "run"], &proof).unwrap());
        assert!(!one.is_proof(Side::Leader, ["ab", "c", "nur"], &proof).unwrap());
        assert!(!other.is_proof(Side::Leader, ["ab", "c", "run"], &proof).unwrap());
        for broken in ["", "zz", "é", &proof[..62], &proof[..63], &format!("{proof}00")] {
            assert!(
                !one.is_proof(Side::Leader, ["ab", "c", "run"], broken).unwrap(),
                "{broken}"
            );
        }
    }

    #[test]
    fn a_secret_that_is_short_or_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let named = SecretOptions {
            secret_file: Some(file.clone()),
        };
        let error = |options: &SecretOptions, variable: Option<&str>| {
            let chosen = options.choose(variable.map(Into::into));
            chosen.err().unwrap().to_string()
        };
        assert!(error(&named, None).contains("--secret-file"));
        std::fs::write(&file, "short\n").unwrap();
        assert!(error(&named, Some("one that is long enough")).contains("5 bytes; use at least 16"));
        let unnamed = SecretOptions::default();
        assert!(error(&unnamed, None).contains("openssl"));
        assert!(error(&unnamed, Some("short")).starts_with(VARIABLE));
        let chosen = unnamed.choose(Some(" one that is long enough\n".into())).ok().unwrap();
        assert_eq!(chosen.0, b"one that is long enough");
    }

    #[tokio::test]
    async fn both_sides_are_sure_of_each_other() {
        let (leader, agent) = duplex(4096);
        let (mut leader, mut agent) = (BufReader::new(leader), BufReader::new(agent));
        let known = secret("one secret of sixteen");
        let taking = let_in(&mut agent, &known, |run| Ok::<_, String>(run.to_owned()));
        let (entered, taken) = tokio::join!(enter(&mut leader, &known, "this run"), taking);
        entered.unwrap();
        assert_eq!(taken.unwrap(), "this run");
    }

    #[tokio::test]
    async fn who_sends_the_proof_back_is_not_believed() {
        let (leader, mirror) = duplex(4096);
        let (mut leader, mut mirror) = (BufReader::new(leader), BufReader::new(mirror));
        let mirroring = async {
            say(&mut mirror, &Challenge { nonce: nonce() }).await?;
            let request: Request = hear(&mut mirror).await?;
            say(&mut mirror, &Answer::Proof(request.proof)).await
        };
        let known = secret("one secret of sixteen");
        let (entered, mirrored) = tokio::join!(enter(&mut leader, &known, "run"), mirroring);
        mirrored.unwrap();
        assert!(entered.unwrap_err().to_string().contains("does not know the secret"));
    }

    #[tokio::test]
    async fn a_line_of_the_proof_has_an_end() {
        let (mut other, agent) = duplex(1 << 16);
        other.write_all(&[b'x'; 4096]).await.unwrap();
        let known = secret("one secret of sixteen");
        let taken = let_in(&mut BufReader::new(agent), &known, |_| Ok::<_, String>(())).await;
        assert!(taken.unwrap_err().to_string().contains("does not end"));
    }
}
