//! The certificates of nodes, and the authority that signs them.
//!
//! Each node that has the cluster key makes the same authority of it, and signs itself a certificate that
//! holds for [`LIFETIME`]. It names the node's addresses, and its name as a digest, since a machine's name may
//! be any text. What is taken from a node's memory can be used from its own addresses only, and not for long.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedKey, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use webpki::EndEntityCert;

use super::TlsProblem;
use crate::trust::{CLOCKS_APART_MAX, ClusterKeys, DerivedKeys, KeyId};

/// How long a certificate holds from when it is made.
pub const LIFETIME: Duration = Duration::from_secs(2 * 3600);
/// By how much it is made to have begun earlier: others' clocks may be behind.
const EARLIER: Duration = CLOCKS_APART_MAX.saturating_mul(2);
/// Addresses that one names at most.
const ADDRESSES_MAX: usize = 64;
/// Dates that certificates can express, and that computing with them does not leave.
const UNIX_S_MAX: u64 = 200_000_000_000;

/// Who a certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertifiedNames {
    /// The node's addresses: that under which others know it, and those from which it connects.
    pub addresses: Vec<IpAddr>,
    /// Its name.
    pub name: String,
}

/// A node's name as a certificate has it.
fn name_in_certificate(name: &str) -> String {
    let digest = digest(&SHA256, name.as_bytes());
    let digits: String =
        digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("n{digits}.p2pfaas.internal")
}

fn authority(key: &DerivedKeys) -> Result<(CertificateParams, KeyPair), TlsProblem> {
    // An Ed25519 key as RFC 8410 writes it: these bytes, and then the seed.
    const BEFORE_SEED: [u8; 16] =
        [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der = [&BEFORE_SEED[..], &key.authority_seed].concat();
    let pair =
        KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("p2pfaas cluster {}", key.id));
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 1, 1);
    Ok((params, pair))
}

/// The authorities of all keys in force.
pub(super) struct Authorities {
    pub(super) roots: RootCertStore,
    /// How each is named in the certificates that it signs.
    subjects: Vec<(KeyId, Vec<u8>)>,
}

impl Authorities {
    pub(super) fn of(keys: &ClusterKeys) -> Result<Self, TlsProblem> {
        let (mut roots, mut subjects) = (RootCertStore::empty(), Vec::new());
        for key in keys.all() {
            let (params, pair) = authority(key)?;
            let certificate = params.self_signed(&pair)?;
            roots.add(certificate.der().clone())?;
            let subject = roots.roots.last().map(|anchor| anchor.subject.to_vec());
            subjects.push((key.id, subject.unwrap_or_default()));
        }
        Ok(Self { roots, subjects })
    }

    /// Whose certificate that is, which one of these has signed.
    pub(super) fn member(&self, certificate: &CertificateDer<'_>) -> Option<ClusterMember> {
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        // A certificate is held to be signed by the authority that it names, and no other.
        let signed_by = |(_, subject): &&(KeyId, Vec<u8>)| subject == parsed.issuer();
        let (key, _) = self.subjects.iter().find(signed_by)?;
        Some(ClusterMember { key: *key, certificate: certificate.clone().into_owned() })
    }
}

/// A certificate for `names` from `unix` on, with its own key.
pub(super) fn issue(
    key: &DerivedKeys,
    names: &CertifiedNames,
    unix: Duration,
) -> Result<CertifiedKey<KeyPair>, TlsProblem> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "p2pfaas node");
    let addresses = names.addresses.iter().take(ADDRESSES_MAX);
    params.subject_alt_names = addresses.map(|ip| SanType::IpAddress(ip.to_canonical())).collect();
    let name = name_in_certificate(&names.name).try_into()?;
    params.subject_alt_names.push(SanType::DnsName(name));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let at = |time: Duration| {
        date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_secs().min(UNIX_S_MAX))
    };
    params.not_before = at(unix.saturating_sub(EARLIER));
    params.not_after = at(unix + LIFETIME);
    let signing_key = KeyPair::generate()?;
    let (authority, pair) = authority(key)?;
    let cert = params.signed_by(&signing_key, &Issuer::from_params(&authority, pair))?;
    Ok(CertifiedKey { cert, signing_key })
}

/// Another node at the end of a connection, by its certificate.
#[derive(Clone, Debug)]
pub struct ClusterMember {
    /// The key whose authority has signed it.
    pub key: KeyId,
    certificate: CertificateDer<'static>,
}

impl ClusterMember {
    fn is_called(&self, name: &ServerName<'_>) -> bool {
        let parsed = EndEntityCert::try_from(&self.certificate);
        parsed.is_ok_and(|parsed| parsed.verify_is_valid_for_subject_name(name).is_ok())
    }

    /// Whether this is one of its addresses.
    pub fn is_at(&self, ip: IpAddr) -> bool {
        self.is_called(&ServerName::IpAddress(ip.to_canonical().into()))
    }

    /// Whether this is its name.
    pub fn is_named(&self, name: &str) -> bool {
        ServerName::try_from(name_in_certificate(name)).is_ok_and(|name| self.is_called(&name))
    }
}
