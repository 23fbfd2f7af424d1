//! Reading certificates.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::PkiError;

/// Who a certificate is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subject {
    /// The common name: the user.
    pub common_name: Option<String>,
    /// The organizations: the groups.
    pub organizations: Vec<String>,
}

/// The subject of a certificate. Says nothing about whether the certificate is genuine.
///
/// # Errors
/// When it is not a certificate.
pub fn subject(certificate: &CertificateDer<'_>) -> Result<Subject, PkiError> {
    let certificate = parse(certificate)?;
    let name = certificate.subject();
    let text =
        |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
    Ok(Subject {
        common_name: name.iter_common_name().filter_map(text).next(),
        organizations: name.iter_organization().filter_map(text).collect(),
    })
}

pub(super) fn certificate_der(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| PkiError::Parse(error.to_string()))
}

pub(super) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PkiError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| PkiError::Parse(error.to_string()))?;
    Ok(parsed)
}

/// The DNS names and addresses a certificate is valid for.
pub(super) fn names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// The id of the key that signed this certificate.
pub(super) fn authority_key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
            _ => None,
        })
}

/// The id of this certificate's own key.
pub(super) fn subject_key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
}

/// Whether the certificate is valid now and longer than another fifth of its life.
pub(super) fn is_fresh(certificate: &X509Certificate<'_>) -> bool {
    let validity = certificate.validity();
    let life = validity.not_after.timestamp() - validity.not_before.timestamp();
    let left = validity
        .time_to_expiration()
        .map(|left| Duration::try_from(left).unwrap_or_default());
    left.is_some_and(|left| i64::try_from(left.as_secs()).is_ok_and(|left| left > life / 5))
}
