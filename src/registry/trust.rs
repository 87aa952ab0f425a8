//! Whom to believe: certificate authorities from files, read when the first TLS connection needs them, and what is
//! said when a certificate does not hold.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::client::locked;
use super::identity::Identity;
use super::location::Policy;
use super::options::Options;
use super::tls;
use crate::error::{Error, Kind, Result};

/// Where distributions keep the authorities that they believe, in the order in which they are looked for.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names a bundle to use instead of the system's, as OpenSSL and Go know it.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

/// The configurations of TLS, one for each host that was connected to.
pub(super) struct Trust {
    ca_files: Vec<PathBuf>,
    /// What `SSL_CERT_FILE` says.
    named_bundle: Option<PathBuf>,
    bundles: &'static [&'static str],
    host_directories: Vec<PathBuf>,
    configs: Mutex<Vec<(String, Arc<ClientConfig>)>>,
}

impl Trust {
    /// `ca_files` stand in for the system's bundle if there are any. Nothing is read yet.
    pub(super) fn new(options: &Options) -> Trust {
        let bundles = SYSTEM_BUNDLES;
        let (ca_files, host_directories) =
            (options.ca_files.clone(), options.certificate_directories.clone());
        let named_bundle = std::env::var_os(BUNDLE_VARIABLE).filter(|file| !file.is_empty());
        let named_bundle = named_bundle.map(PathBuf::from);
        let configs = Mutex::new(Vec::new());
        Trust { ca_files, named_bundle, bundles, host_directories, configs }
    }

    /// How to speak TLS with `authority` (`host[:port]`).
    pub(super) fn config(&self, authority: &str, policy: Policy) -> Result<Arc<ClientConfig>> {
        let mut configs = locked(&self.configs);
        if let Some((_, config)) = configs.iter().find(|(name, _)| name == authority) {
            return Ok(config.clone());
        }
        let provider = tls::provider();
        let authorities = match policy {
            Policy::Insecure => None,
            Policy::Loopback => {
                Some(self.given_for(authority)?).filter(|given| !given.sources.is_empty())
            }
            Policy::Verified => Some(self.all_for(authority)?),
        };
        let verifier = Arc::new(Verifier { authorities, provider: provider.clone() });
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::DEFAULT_VERSIONS)
            .map_err(|e| Error::new(Kind::Internal, "set up TLS").caused_by(e))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = Arc::new(match self.identity_for(authority)? {
            Some(identity) => identity.configure(config)?,
            None => config.with_no_client_auth(),
        });
        configs.push((authority.to_string(), config.clone()));
        Ok(config)
    }

    /// Who to be at this host: the first pair of certificate and key in its directories.
    fn identity_for(&self, authority: &str) -> Result<Option<Identity>> {
        for directory in &self.host_directories {
            if let Some(identity) = Identity::find(&directory.join(authority))? {
                return Ok(Some(identity));
            }
        }
        Ok(None)
    }

    /// What the user gave for this host: `ca_files` and the host's directories.
    fn given_for(&self, authority: &str) -> Result<Authorities> {
        let mut given = Authorities { store: RootCertStore::empty(), sources: Vec::new() };
        for file in &self.ca_files {
            given.read(file)?;
        }
        for directory in &self.host_directories {
            given.read_directory(&directory.join(authority))?;
        }
        Ok(given)
    }

    /// The same and, unless `ca_files` stand in for it, the system's bundle.
    fn all_for(&self, authority: &str) -> Result<Authorities> {
        let mut all = self.given_for(authority)?;
        if !self.ca_files.is_empty() {
            return Ok(all);
        }
        if let Some(file) = &self.named_bundle {
            all.read(file)?;
            return Ok(all);
        }
        if let Some(bundle) = self.bundles.iter().find(|file| Path::new(file).exists()) {
            all.read(Path::new(bundle))?;
        }
        if all.sources.is_empty() {
            let directories = self.host_directories.iter().map(|path| path.display().to_string());
            let directories: Vec<String> = directories.collect();
            let message = format!(
                "find certificate authorities: none of {}, and no *.crt in {}/ of {}",
                self.bundles.join(" "),
                authority,
                directories.join(" "),
            );
            return Err(Error::new(Kind::NotFound, message));
        }
        Ok(all)
    }
}

/// Authorities and the files they came from.
struct Authorities {
    store: RootCertStore,
    sources: Vec<PathBuf>,
}

impl Authorities {
    /// Adds every certificate of a PEM file. One of many that cannot be read is passed over, as the bundles of
    /// distributions hold some odd ones; a file without any good one is an error.
    fn read(&mut self, file: &Path) -> Result<()> {
        let doing = || format!("read certificate authorities of {}", file.display());
        let bytes = fs_err::read(file).map_err(|e| Error::io(doing(), e))?;
        let (mut good, mut bad) = (0, None);
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let added = certificate.map_err(|e| e.to_string());
            match added.and_then(|c| self.store.add(c).map_err(|e| e.to_string())) {
                Ok(()) => good += 1,
                Err(why) => bad = Some(why),
            }
        }
        if good == 0 {
            let why = bad.unwrap_or_else(|| "no PEM certificate in it".into());
            return Err(Error::new(Kind::Invalid, format!("{}: {why}", doing())));
        }
        self.sources.push(file.to_path_buf());
        Ok(())
    }

    fn read_directory(&mut self, directory: &Path) -> Result<()> {
        let entries = match fs_err::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("read certificate authorities", e)),
        };
        for entry in entries {
            let path = entry.map_err(|e| Error::io("read certificate authorities", e))?.path();
            if path.extension().is_some_and(|extension| extension == "crt") {
                self.read(&path)?;
            }
        }
        Ok(())
    }

    /// Whether this very certificate's name and key are among the authorities.
    fn contain(&self, certificate: &CertificateDer) -> bool {
        let mut alone = RootCertStore::empty();
        alone.add(certificate.clone()).is_ok()
            && alone.roots.first().is_some_and(|root| self.store.roots.contains(root))
    }
}

/// Judges the server's certificate. Revocation lists are not looked at, as in Docker's engine.
struct Verifier {
    /// `None`: any certificate will do.
    authorities: Option<Authorities>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let roots = &authorities.store;
        match verify_server_cert_signed_by_trust_anchor(
            &certificate,
            roots,
            intermediates,
            now,
            algorithms,
        ) {
            // What `openssl req -x509` makes, and Docker's guide tells people to make: one certificate that is the
            // server's and its own authority. It has been found in its time of validity before this is said.
            Err(error) if is_ca_as_server(&error) && authorities.contain(end_entity) => {}
            result => result?,
        }
        verify_server_name(&certificate, server_name).map_err(|_| {
            let presented = dns_names(end_entity);
            CertificateError::NotValidForNameContext { expected: server_name.to_owned(), presented }
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

/// The names in a certificate, to say whose it is; addresses are left out.
fn dns_names(certificate: &CertificateDer) -> Vec<String> {
    let names = webpki::EndEntityCert::try_from(certificate);
    names.map(|c| c.valid_dns_names().map(str::to_string).collect()).unwrap_or_default()
}

/// rustls has no name for this one; it passes webpki's error on.
fn is_ca_as_server(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
        }
        _ => false,
    }
}

/// Why a handshake failed.
pub(super) enum Cause {
    /// The server speaks plain HTTP, or hangs up when it sees TLS.
    SpeaksPlain,
    /// Anything else, in words.
    Is(Error),
}

/// Reads the error of a handshake.
pub(super) fn cause(error: io::Error) -> Cause {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        (Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)), _) => {
            Cause::SpeaksPlain
        }
        (Some(tls), _) => Cause::Is(Error::new(kind(tls), in_words(tls))),
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => Cause::SpeaksPlain,
        (None, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Cause::Is(Error::new(Kind::Unavailable, "the server does not answer in time"))
        }
        (None, _) => Cause::Is(Error::new(Kind::Unavailable, error.to_string())),
    }
}

/// What a bit that was changed on the way makes of TLS may be right the next time; nothing else is.
fn kind(error: &rustls::Error) -> Kind {
    use rustls::AlertDescription as Alert;
    match error {
        rustls::Error::DecryptError
        | rustls::Error::InvalidMessage(_)
        | rustls::Error::AlertReceived(
            Alert::BadRecordMac | Alert::DecodeError | Alert::DecryptError,
        ) => Kind::Unavailable,
        _ => Kind::Invalid,
    }
}

/// The shipped binary has no `Debug` texts, which rustls uses for details; what people meet is worded here.
fn in_words(error: &rustls::Error) -> String {
    use CertificateError as Bad;
    let bad = match error {
        rustls::Error::InvalidCertificate(bad) => bad,
        rustls::Error::AlertReceived(alert) => {
            return format!("the server refuses with TLS alert {}", u8::from(*alert));
        }
        rustls::Error::PeerIncompatible(_) => {
            return "it has no TLS version, cipher or key exchange in common with this client"
                .into();
        }
        other => return other.to_string(),
    };
    let why = match bad {
        Bad::UnknownIssuer => "is not signed by an authority known here",
        Bad::Expired | Bad::ExpiredContext { .. } => "has expired",
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            "is not valid yet: is the clock of this machine right"
        }
        Bad::NotValidForName => "is for another host",
        Bad::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "is for another host"
        }
        Bad::NotValidForNameContext { presented, .. } => {
            return format!("its certificate is for another host: {}", presented.join(", "));
        }
        Bad::BadSignature => "has a bad signature or a key that is too weak",
        Bad::BadEncoding => "is malformed",
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => "is not for servers",
        Bad::UnsupportedSignatureAlgorithmContext { .. }
        | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed by an algorithm that is not supported"
        }
        _ if is_ca_as_server(error) => {
            "is an authority's own, and that authority is not known here"
        }
        _ => "is not acceptable",
    };
    format!("its certificate {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_it_looked() {
        let mut trust = Trust::new(&Options::default());
        trust.named_bundle = None;
        trust.bundles = &["/nowhere/a.crt", "/nowhere/b.pem"];
        trust.host_directories = vec!["/nowhere/certs.d".into()];
        let expected = "find certificate authorities: none of /nowhere/a.crt /nowhere/b.pem, \
            and no *.crt in r.example:5/ of /nowhere/certs.d";
        let error = trust.config("r.example:5", Policy::Verified).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (expected, Kind::NotFound));
        trust.named_bundle = Some("/nowhere/named.pem".into());
        let error = trust.config("r.example:5", Policy::Verified).unwrap_err();
        assert!(error.to_string().contains("/nowhere/named.pem"), "{error}");
        assert!(trust.config("127.0.0.1:5", Policy::Loopback).is_ok(), "nothing is needed there");
        assert!(trust.config("lan:5", Policy::Insecure).is_ok());
    }

    #[test]
    fn words_what_a_handshake_meets() {
        let tls = |error: rustls::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let words = |error| match cause(error) {
            Cause::SpeaksPlain => "plain".to_string(),
            Cause::Is(error) => error.to_string(),
        };
        for (error, expected) in [
            (tls(rustls::InvalidMessage::InvalidContentType.into()), "plain"),
            (io::ErrorKind::UnexpectedEof.into(), "plain"),
            (io::ErrorKind::ConnectionReset.into(), "plain"),
            (io::ErrorKind::WouldBlock.into(), "the server does not answer in time"),
            (
                tls(CertificateError::NotValidYet.into()),
                "its certificate is not valid yet: is the clock of this machine right",
            ),
            (tls(CertificateError::NotValidForName.into()), "its certificate is for another host"),
        ] {
            assert_eq!(words(error), expected);
        }
    }
}
