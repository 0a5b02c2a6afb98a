//! A JSON Web Key Set, reduced to the keys that can verify, each pinned to one algorithm.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::claims::Rules;
use super::key::PinnedKey;

/// Keys read of one set; issuers publish a handful.
const MAX_KEYS: usize = 100;

/// Sizes of RSA keys that the crypto library verifies with, in bytes of modulus.
const RSA_MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// Some issuers pad what the standard leaves unpadded.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a set that can verify tokens.
#[derive(Debug)]
pub(super) struct KeySet(Vec<PinnedKey>);

/// What a set has for a token.
pub(super) enum Selection<'a> {
    /// The one key to verify with.
    Key(&'a PinnedKey),
    /// No key of that name, or none for that algorithm: a newer set may have it.
    Unknown,
    /// The named key is pinned to another algorithm.
    OtherAlgorithm,
    /// A token without a key's name, and several keys for its algorithm.
    Ambiguous,
}

impl KeySet {
    /// Reads a set; keys for other purposes or of other kinds are left out, a set without any usable one is none.
    pub(super) fn parse(text: &str, rules: &Rules) -> Option<Self> {
        let document: Document = serde_json::from_str(text).ok()?;
        let total = document.keys.len();
        let keys: Vec<PinnedKey> = document
            .keys
            .into_iter()
            .take(MAX_KEYS)
            .filter_map(|value| read_key(serde_json::from_value(value).ok()?, rules))
            .collect();
        if keys.len() < total {
            tracing::debug!(total, usable = keys.len(), "the key set has keys that are not used");
        }
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The key for a token's `kid` and `alg`.
    pub(super) fn select(&self, kid: Option<&str>, algorithm: Algorithm) -> Selection<'_> {
        let fits = |key: &&PinnedKey| key.algorithm == algorithm;
        if let Some(kid) = kid {
            let named = || self.0.iter().filter(|key| key.kid.as_deref() == Some(kid));
            return match (named().find(fits), named().next()) {
                (Some(key), _) => Selection::Key(key),
                (None, Some(_)) => Selection::OtherAlgorithm,
                (None, None) => Selection::Unknown,
            };
        }
        let mut fitting = self.0.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Selection::Key(key),
            (Some(_), Some(_)) => Selection::Ambiguous,
            (None, _) => Selection::Unknown,
        }
    }
}

fn read_key(jwk: Jwk, rules: &Rules) -> Option<PinnedKey> {
    if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    if jwk
        .key_ops
        .as_ref()
        .is_some_and(|ops| !ops.iter().any(|op| op == "verify"))
    {
        return None;
    }
    let part = |text: &Option<String>| BASE64.decode(text.as_ref()?).ok();
    let (algorithm, key) = match (jwk.kty.as_str(), jwk.crv.as_deref(), jwk.alg.as_deref()) {
        ("RSA", _, alg) => {
            let algorithm = match alg {
                None | Some("RS256") => Algorithm::RS256,
                Some("RS384") => Algorithm::RS384,
                Some("RS512") => Algorithm::RS512,
                Some("PS256") => Algorithm::PS256,
                Some("PS384") => Algorithm::PS384,
                Some("PS512") => Algorithm::PS512,
                Some(_) => return None,
            };
            let (n, e) = (part(&jwk.n)?, part(&jwk.e)?);
            // Some issuers write the sign byte, which the crypto library refuses.
            let n = &n[n.iter().position(|byte| *byte != 0)?..];
            if !RSA_MODULUS.contains(&n.len()) || e.is_empty() {
                return None;
            }
            (algorithm, DecodingKey::from_rsa_raw_components(n, &e))
        }
        ("EC", Some("P-256"), None | Some("ES256")) => {
            (Algorithm::ES256, ec_point(&part(&jwk.x)?, &part(&jwk.y)?, 32)?)
        }
        ("EC", Some("P-384"), None | Some("ES384")) => {
            (Algorithm::ES384, ec_point(&part(&jwk.x)?, &part(&jwk.y)?, 48)?)
        }
        ("OKP", Some("Ed25519"), None | Some("EdDSA" | "Ed25519")) => {
            let x = part(&jwk.x).filter(|x| x.len() == 32)?;
            (Algorithm::EdDSA, DecodingKey::from_ed_der(&x))
        }
        // Symmetric keys too: what is published is no secret.
        _ => return None,
    };
    Some(PinnedKey::new(jwk.kid, algorithm, key, rules))
}

/// The uncompressed form of a point, which is what the library calls the DER of an EC key.
fn ec_point(x: &[u8], y: &[u8], size: usize) -> Option<DecodingKey> {
    (x.len() == size && y.len() == size).then(|| DecodingKey::from_ec_der(&[&[4], x, y].concat()))
}
