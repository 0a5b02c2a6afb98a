//! Public keys in PEM, and the algorithm that each kind stands for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey};

/// `rsaEncryption`, as DER.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// `ecPublicKey` with the curve P-256, as DER.
const EC_P256: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
];
/// `ecPublicKey` with the curve P-384, as DER.
const EC_P384: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
];
/// `Ed25519`, as DER.
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// An RSA key of 2048 bits, the least the crypto library verifies with, has no shorter DER.
const RSA_2048_DER: usize = 256;

/// What is wrong with a key, and what to do about it.
type Problem = (&'static str, &'static str);

const NO_KEY: Problem = (
    "is no PEM public key",
    "give the text from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----",
);
const OTHER_KIND: Problem = (
    "is of a kind that is not supported",
    "use RSA (RS256), EC P-256 or P-384 (ES256, ES384) or Ed25519 (EdDSA)",
);

/// Reads a public key; RSA stands for RS256, P-256 for ES256, P-384 for ES384 and Ed25519 for EdDSA.
pub(super) fn read_public_key(text: &str) -> Result<(Algorithm, DecodingKey), Problem> {
    // Environment files often hold the line ends as two characters.
    let text = text.replace("\\n", "\n");
    let (label, der) = decode(&text).ok_or(NO_KEY)?;
    let pem = text.trim().as_bytes();
    let algorithm = match label {
        "RSA PUBLIC KEY" => Algorithm::RS256,
        "PUBLIC KEY" => algorithm_of(&der).ok_or(OTHER_KIND)?,
        "CERTIFICATE" => {
            return Err((
                "is a certificate",
                "take its key: openssl x509 -in cert.pem -pubkey -noout",
            ));
        }
        _ if label.contains("PRIVATE") => {
            return Err((
                "is a private key, which does not belong here",
                "give its public half: openssl pkey -in key.pem -pubout",
            ));
        }
        _ => return Err(NO_KEY),
    };
    if algorithm == Algorithm::RS256 && der.len() < RSA_2048_DER {
        return Err(("is an RSA key of less than 2048 bits", "use a longer key"));
    }
    let key = match algorithm {
        Algorithm::RS256 => DecodingKey::from_rsa_pem(pem),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
        _ => DecodingKey::from_ec_pem(pem),
    };
    key.map(|key| (algorithm, key)).map_err(|_| NO_KEY)
}

/// The label and the bytes of the only block.
fn decode(text: &str) -> Option<(&str, Vec<u8>)> {
    let (label, rest) = text.trim().strip_prefix("-----BEGIN ")?.split_once("-----")?;
    let (body, end) = rest.split_once("-----END ")?;
    if end.trim_end() != format!("{label}-----") {
        return None;
    }
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    Some((label, STANDARD.decode(body).ok()?))
}

/// Reads the algorithm identifier at the start of a `SubjectPublicKeyInfo`.
fn algorithm_of(der: &[u8]) -> Option<Algorithm> {
    let identifier = sequence(sequence(der)?)?;
    if identifier.starts_with(RSA) {
        Some(Algorithm::RS256)
    } else if identifier.starts_with(EC_P256) {
        Some(Algorithm::ES256)
    } else if identifier.starts_with(EC_P384) {
        Some(Algorithm::ES384)
    } else if identifier.starts_with(ED25519) {
        Some(Algorithm::EdDSA)
    } else {
        None
    }
}

/// What follows the header of a DER sequence.
fn sequence(der: &[u8]) -> Option<&[u8]> {
    let rest = der.strip_prefix(&[0x30])?;
    match *rest.first()? {
        length if length < 0x80 => rest.get(1..),
        // The low bits say how many bytes of length follow.
        long => rest.get(1 + usize::from(long & 0x7f)..),
    }
}
