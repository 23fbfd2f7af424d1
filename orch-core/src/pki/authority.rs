//! The authority that signs a cluster's certificates.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::CertificateDer;

use super::{Credential, DAY, Leaf, PkiError, file, inspect};

/// Certificates count from a little earlier, for clocks that are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// A certificate authority: its certificate and the key it signs with.
pub struct CertificateAuthority {
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// A new authority, valid for ten years, kept nowhere.
    ///
    /// # Errors
    /// When no key could be made.
    pub fn create(common_name: &str) -> Result<Self, PkiError> {
        Self::self_signed(common_name, KeyPair::generate()?)
    }

    /// The authority kept in `dir` as `NAME.crt` and `NAME.key`, made if it is not there.
    ///
    /// The directory is created with mode 0700, the key file with mode 0600.
    ///
    /// # Errors
    /// When the files cannot be used, or the certificate is there without its key.
    pub fn load_or_create(dir: &Path, name: &str, common_name: &str) -> Result<Self, PkiError> {
        file::create_dir(dir)?;
        let (certificate_path, key_path) = paths(dir, name);
        let key = file::read(&key_path)?;
        match (file::read(&certificate_path)?, key) {
            (Some(certificate), Some(key)) => Self::from_pem(certificate, &key, &certificate_path),
            (Some(_), None) => Err(PkiError::KeyMissing {
                path: certificate_path,
            }),
            // The key is written first: this is a creation that was cut short.
            (None, Some(key)) => {
                let ca = Self::self_signed(common_name, KeyPair::from_pem(&key)?)?;
                file::write(&certificate_path, &ca.certificate_pem, 0o644)?;
                Ok(ca)
            }
            (None, None) => {
                let ca = Self::create(common_name)?;
                file::write(&key_path, &ca.issuer.key().serialize_pem(), 0o600)?;
                file::write(&certificate_path, &ca.certificate_pem, 0o644)?;
                Ok(ca)
            }
        }
    }

    fn from_pem(certificate_pem: String, key: &str, path: &Path) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key)?;
        let certificate = inspect::certificate_der(&certificate_pem)?;
        if inspect::parse(&certificate)?.public_key().raw != key.subject_public_key_info() {
            return Err(PkiError::KeyMissing {
                path: path.to_owned(),
            });
        }
        Ok(CertificateAuthority {
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            certificate_pem,
            certificate,
        })
    }

    fn self_signed(common_name: &str, key: KeyPair) -> Result<Self, PkiError> {
        let mut params = params(common_name, None, 3650 * DAY);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key)?;
        Ok(CertificateAuthority {
            certificate_pem: certificate.pem(),
            certificate: certificate.into(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority's certificate, PEM: what clients trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// When a name is neither a DNS name nor an address.
    pub fn issue(&self, leaf: &Leaf) -> Result<Credential, PkiError> {
        let key = KeyPair::generate()?;
        let certificate = leaf_params(leaf)?.signed_by(&key, &self.issuer)?;
        Ok(Credential {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// The certificate kept in `dir` as `NAME.crt` and `NAME.key`. It is issued anew if it is not there, says
    /// something else than `leaf`, comes from another authority, or has less than a fifth of its life left.
    ///
    /// # Errors
    /// When the files cannot be used, or a name is neither a DNS name nor an address.
    pub fn load_or_issue(&self, dir: &Path, name: &str, leaf: &Leaf) -> Result<Credential, PkiError> {
        file::create_dir(dir)?;
        let (certificate_path, key_path) = paths(dir, name);
        if let (Some(certificate_pem), Some(key_pem)) =
            (file::read(&certificate_path)?, file::read(&key_path)?)
        {
            let credential = Credential {
                certificate_pem,
                key_pem,
            };
            match self.is_current(&credential, leaf) {
                Ok(true) => return Ok(credential),
                Ok(false) => {
                    tracing::info!(certificate = %certificate_path.display(), "renewing a certificate")
                }
                Err(error) => {
                    tracing::warn!(certificate = %certificate_path.display(), %error, "replacing a certificate");
                }
            }
        }
        let credential = self.issue(leaf)?;
        file::write(&key_path, &credential.key_pem, 0o600)?;
        file::write(&certificate_path, &credential.certificate_pem, 0o644)?;
        Ok(credential)
    }

    fn is_current(&self, credential: &Credential, leaf: &Leaf) -> Result<bool, PkiError> {
        let der = inspect::certificate_der(&credential.certificate_pem)?;
        let certificate = inspect::parse(&der)?;
        let own = inspect::parse(&self.certificate)?;
        let key = KeyPair::from_pem(&credential.key_pem)?;
        let subject = inspect::subject(&der)?;
        let wanted: BTreeSet<String> = leaf.names.iter().map(|name| canonical(name)).collect();
        let signed_by_us = inspect::authority_key_id(&certificate)
            .is_some_and(|id| Some(id) == inspect::subject_key_id(&own));
        let usage = certificate.extended_key_usage().ok().flatten();
        let usage = usage.map_or((false, false), |usage| {
            (usage.value.server_auth, usage.value.client_auth)
        });
        Ok(signed_by_us
            && certificate.public_key().raw == key.subject_public_key_info()
            && subject.common_name.as_deref() == Some(leaf.common_name.as_str())
            && subject.organizations.first() == leaf.organization.as_ref()
            && inspect::names(&certificate) == wanted
            && usage == (leaf.server, leaf.client)
            && inspect::is_fresh(&certificate))
    }
}

fn paths(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")))
}

/// Addresses in the form in which certificates give them back.
fn canonical(name: &str) -> String {
    name.parse::<IpAddr>()
        .map_or_else(|_| name.to_owned(), |address| address.to_string())
}

fn params(common_name: &str, organization: Option<&str>, lifetime: Duration) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + lifetime).into();
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn leaf_params(leaf: &Leaf) -> Result<CertificateParams, PkiError> {
    let mut all = params(&leaf.common_name, leaf.organization.as_deref(), leaf.lifetime);
    all.subject_alt_names = CertificateParams::new(leaf.names.clone())?.subject_alt_names;
    all.use_authority_key_identifier_extension = true;
    all.is_ca = IsCa::ExplicitNoCa;
    all.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    if leaf.server {
        all.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if leaf.client {
        all.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    Ok(all)
}
