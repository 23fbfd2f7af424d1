//! Keys that sign and verify tokens: ES256 and RS256, as JSON Web Signatures know them (RFC 7515, RFC 7518).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// What comes before the 65 bytes of a P-256 point in its public key: `id-ecPublicKey`, `prime256v1`, a bit string.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// `rsaEncryption` with its empty parameters.
const RSA_ALGORITHM: [u8; 15] = [
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

/// Why a key cannot be used. It says nothing of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No key of a known sort is in the text.
    #[error("no key found: a PEM block PRIVATE KEY, RSA PRIVATE KEY or PUBLIC KEY is wanted")]
    NoKey,
    /// The key is of a sort, or too short, or broken, so that it cannot be used.
    #[error("the key cannot be used, only P-256 (as PKCS #8) and RSA of 2048 bits and more can: {0}")]
    Unusable(String),
    /// The system gave no randomness.
    #[error("no key could be made")]
    Random,
}

enum Pair {
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A private key that signs tokens. It prints as the id of its public key.
pub struct SigningKey {
    pair: Pair,
    public: VerifyingKey,
    /// As it was read or made, for [`to_pem`](Self::to_pem).
    pem: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public.id).finish()
    }
}

impl SigningKey {
    /// A new P-256 key.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| KeyError::Random)?;
        let text = STANDARD.encode(pkcs8.as_ref());
        let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.extend(line.iter().copied().map(char::from));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Self::from_pem(&pem)
    }

    /// Reads a P-256 or RSA key: `PRIVATE KEY` (PKCS #8) or `RSA PRIVATE KEY` (PKCS #1, as kubeadm's `sa.key`).
    ///
    /// # Errors
    /// When there is none, or one that cannot be used.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NoKey)?;
        let unusable = |error: ring::error::KeyRejected| KeyError::Unusable(error.to_string());
        let pair = match &der {
            PrivateKeyDer::Pkcs1(der) => {
                Pair::Rsa(RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(unusable)?)
            }
            PrivateKeyDer::Pkcs8(der) => {
                let (der, random) = (der.secret_pkcs8_der(), SystemRandom::new());
                match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random) {
                    Ok(pair) => Pair::P256(pair),
                    Err(_) => Pair::Rsa(RsaKeyPair::from_pkcs8(der).map_err(unusable)?),
                }
            }
            _ => return Err(KeyError::Unusable("its form is not PKCS #8".to_owned())),
        };
        let spki = match &pair {
            Pair::P256(pair) => [&P256_PREFIX, pair.public_key().as_ref()].concat(),
            Pair::Rsa(pair) => rsa_spki(pair.public_key().as_ref()),
        };
        Ok(Self {
            pair,
            public: VerifyingKey::from_spki(&spki)?,
            pem: pem.to_owned(),
        })
    }

    /// The key in the form in which it can be kept. A secret.
    #[must_use]
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// The public part.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        self.public.clone()
    }

    /// A token of these claims.
    pub(crate) fn sign(&self, claims: &[u8]) -> Result<String, KeyError> {
        let header = json!({"alg": self.public.algorithm.name(), "kid": self.public.id}).to_string();
        let text = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::P256(pair) => {
                let signature = pair.sign(&random, text.as_bytes());
                signature.map_err(|_| KeyError::Random)?.as_ref().to_vec()
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
                    .map_err(|_| KeyError::Random)?;
                signature
            }
        };
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Es256,
    Rs256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// A public key that verifies tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    /// The point, or the modulus and exponent as PKCS #1.
    bytes: Vec<u8>,
    id: String,
    jwk: Value,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifyingKey").field(&self.id).finish()
    }
}

impl VerifyingKey {
    /// Reads a `PUBLIC KEY`.
    ///
    /// # Errors
    /// When there is none, or one that cannot be used.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NoKey)?;
        Self::from_spki(der.as_ref())
    }

    fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let unusable = |why: &str| KeyError::Unusable(why.to_owned());
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| unusable("it is broken"))?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(der));
        let bytes = info.subject_public_key.data.to_vec();
        let number = |bytes: &[u8]| {
            let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
            URL_SAFE_NO_PAD.encode(&bytes[first..])
        };
        let (algorithm, mut jwk) = match info.parsed().map_err(|_| unusable("it is broken"))? {
            PublicKey::EC(_) if der.starts_with(&P256_PREFIX) && bytes.len() == 65 => (
                Algorithm::Es256,
                json!({
                    "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(&bytes[1..33]),
                    "y": URL_SAFE_NO_PAD.encode(&bytes[33..]),
                }),
            ),
            PublicKey::RSA(rsa) => (
                Algorithm::Rs256,
                json!({"kty": "RSA", "n": number(rsa.modulus), "e": number(rsa.exponent)}),
            ),
            _ => return Err(unusable("it is of another sort")),
        };
        jwk["use"] = "sig".into();
        jwk["kid"] = id.as_str().into();
        jwk["alg"] = algorithm.name().into();
        Ok(Self {
            algorithm,
            bytes,
            id,
            jwk,
        })
    }

    /// The signature's algorithm as JSON Web Signatures name it.
    pub(crate) fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// Name of the key: the digest of its public part, as upstream.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The key as a JSON Web Key.
    pub(crate) fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// Whether the signature is by this key.
    pub(crate) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Es256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.bytes)
                .verify(text, signature)
                .is_ok(),
            Algorithm::Rs256 => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.bytes)
                .verify(text, signature)
                .is_ok(),
        }
    }
}

/// An RSA key as a public key of any sort: a sequence of its algorithm and a bit string.
fn rsa_spki(pkcs1: &[u8]) -> Vec<u8> {
    let bits = tagged(0x03, &[&[0], pkcs1].concat());
    tagged(0x30, &[&RSA_ALGORITHM, bits.as_slice()].concat())
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut der = vec![tag];
    if length < 0x80 {
        der.push(length.to_be_bytes()[size_of::<usize>() - 1]);
    } else {
        let bytes = length.to_be_bytes();
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
        let bytes = &bytes[first..];
        der.push(0x80 | bytes.len().to_be_bytes()[size_of::<usize>() - 1]);
        der.extend_from_slice(bytes);
    }
    der.extend_from_slice(content);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &SigningKey) {
        let token = key.sign(b"{}").unwrap();
        let (text, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let public = key.verifying_key();
        assert!(public.verifies(text.as_bytes(), &signature));
        assert!(!public.verifies(b"else", &signature));
        assert!(
            !SigningKey::generate()
                .unwrap()
                .verifying_key()
                .verifies(text.as_bytes(), &signature)
        );
        let again = SigningKey::from_pem(key.to_pem()).unwrap();
        assert_eq!(again.verifying_key(), public);
    }

    #[test]
    fn a_generated_key_signs_and_can_be_kept() {
        let key = SigningKey::generate().unwrap();
        assert_eq!(key.verifying_key().algorithm(), "ES256");
        check(&key);
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn keys_of_openssl_are_read_in_all_their_forms() {
        let run = |arguments: &[&str], input: &str| {
            use std::io::Write;
            let mut child = std::process::Command::new("openssl")
                .args(arguments)
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("openssl is installed");
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
        };
        let rsa = run(&["genrsa", "2048"], "");
        let traditional = run(&["rsa", "-traditional"], &rsa);
        let public = run(&["rsa", "-pubout"], &rsa);
        assert!(traditional.contains("BEGIN RSA PRIVATE KEY"));
        for pem in [&rsa, &traditional] {
            let key = SigningKey::from_pem(pem).unwrap();
            check(&key);
            assert_eq!(VerifyingKey::from_pem(&public).unwrap(), key.verifying_key());
            assert_eq!(key.verifying_key().jwk()["e"], "AQAB");
        }
        let ec = run(
            &[
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ],
            "",
        );
        check(&SigningKey::from_pem(&ec).unwrap());
        let public = run(&["ec", "-pubout"], &ec);
        assert_eq!(
            VerifyingKey::from_pem(&public).unwrap(),
            SigningKey::from_pem(&ec).unwrap().verifying_key()
        );
    }

    #[test]
    fn what_is_no_key_is_refused_without_its_text() {
        for text in [
            "",
            "secret",
            "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
        ] {
            let error = SigningKey::from_pem(text).unwrap_err().to_string();
            assert!(
                !error.contains("secret") && !error.contains("c2VjcmV0"),
                "{error}"
            );
        }
    }
}
