//! Client certificates: who to be at a registry that wants one, from `<host[:port]>/NAME.cert` with `NAME.key`, both PEM.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder};

use crate::error::{Error, Kind, Result};

/// A certificate with those that vouch for it, and its key.
pub(super) struct Identity {
    certificate: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// The first pair, by name, in `directory`, which need not be there. Half a pair is an error, in Docker's words.
    pub(super) fn find(directory: &Path) -> Result<Option<Identity>> {
        let doing = || format!("read client certificates of {}", directory.display());
        let entries = match fs_err::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read client certificates", e)),
        };
        let mut files = Vec::new();
        for entry in entries {
            files.push(entry.map_err(|e| Error::io(doing(), e))?.path());
        }
        files.sort_unstable();
        let mut first = None;
        for file in &files {
            let extension = file.extension().and_then(|extension| extension.to_str());
            let (other, what) = match extension {
                Some("cert") => (file.with_extension("key"), "key"),
                Some("key") => (file.with_extension("cert"), "client certificate"),
                _ => continue,
            };
            if !files.contains(&other) {
                let (file, other) = (file.display(), other.display());
                let message = match what {
                    "key" => format!(
                        "missing key {other} for client certificate {file}. CA certificates must use the extension .crt"
                    ),
                    _ => format!("missing client certificate {other} for key {file}"),
                };
                return Err(Error::new(Kind::NotFound, message));
            }
            if first.is_none() && extension == Some("cert") {
                first = Some((file, other));
            }
        }
        first.map(|(certificate, key)| Identity::read(certificate, &key)).transpose()
    }

    fn read(certificate: &Path, key: &Path) -> Result<Identity> {
        let refuse = |file: &Path, why: &str| {
            let message = format!("read client certificate {}: {why}", file.display());
            Error::new(Kind::Invalid, message)
        };
        let read =
            |file: &Path| fs_err::read(file).map_err(|e| Error::io("read client certificate", e));
        let chain: Vec<CertificateDer> = CertificateDer::pem_slice_iter(&read(certificate)?)
            .collect::<Result<_, _>>()
            .map_err(|_| refuse(certificate, "malformed PEM"))?;
        if chain.is_empty() {
            return Err(refuse(certificate, "no PEM certificate in it"));
        }
        let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|_| refuse(key, "no PEM private key in it"))?;
        Ok(Identity { certificate: certificate.to_path_buf(), chain, key: secret })
    }

    /// The configuration of TLS that shows it.
    pub(super) fn configure(
        self,
        config: ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<ClientConfig> {
        let Identity { certificate, chain, key } = self;
        config.with_client_auth_cert(chain, key).map_err(|cause| {
            let message = format!("use client certificate {}", certificate.display());
            Error::new(Kind::Invalid, message).caused_by(cause)
        })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}
