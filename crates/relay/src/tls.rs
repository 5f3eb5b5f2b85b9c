//! TLS 1.2 and 1.3 on the relay's own listener, with a certificate that can be renewed at run time.
//!
//! The files are checked for changes on each new connection and on SIGHUP. If they cannot be used,
//! the previous certificate stays in use.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

/// Paths of the certificate chain and its private key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate first, then each issuer of the one before.
    pub cert: PathBuf,
    /// Private key in PKCS#8, PKCS#1 or SEC1 form.
    pub key: PathBuf,
}

/// Reason why the files cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{} cannot be read: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("{} and {} are not a valid certificate and key: {source}", files.cert.display(), files.key.display())]
    Pair {
        files: TlsFiles,
        source: rustls::Error,
    },
}

/// The certificate in use, and the files it comes from.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    shown: Mutex<Shown>,
}

struct Shown {
    acceptor: TlsAcceptor,
    /// Stamp of the files when last checked, whether or not they could be used.
    stamp: Stamp,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

/// Modification time and size of both files, to detect a change.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Tls {
    /// Loads the certificate.
    ///
    /// # Errors
    /// The files cannot be used; the message is for the user who named them.
    pub(crate) fn open(files: TlsFiles) -> io::Result<Self> {
        let stamp = stamp(&files);
        let acceptor = load(&files).map_err(io::Error::other)?;
        let shown = Mutex::new(Shown { acceptor, stamp });
        Ok(Self { files, shown })
    }

    /// Returns the acceptor for the next connection, after reloading the files if they have
    /// changed.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let now = stamp(&self.files);
        let mut shown = self.shown.lock();
        if shown.stamp != now {
            shown.stamp = now;
            self.renew(&mut shown);
        }
        shown.acceptor.clone()
    }

    /// Reloads the files, whether or not they seem to have changed.
    pub(crate) fn reload(&self) {
        let mut shown = self.shown.lock();
        shown.stamp = stamp(&self.files);
        self.renew(&mut shown);
    }

    fn renew(&self, shown: &mut Shown) {
        match load(&self.files) {
            Ok(acceptor) => {
                shown.acceptor = acceptor;
                tracing::info!("certificate reloaded");
            }
            Err(error) => {
                tracing::error!(%error, "cannot reload the certificate; the previous one stays in use");
            }
        }
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    let of = |path: &Path| {
        let file = path.metadata().ok()?;
        Some((file.modified().ok()?, file.len()))
    };
    [of(&files.cert), of(&files.key)]
}

fn load(files: &TlsFiles) -> Result<TlsAcceptor, Unusable> {
    let unreadable = |path: &Path, why: String| Unusable::File {
        path: path.to_owned(),
        why,
    };
    let chain = CertificateDer::pem_file_iter(&files.cert).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(|error| unreadable(&files.cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(unreadable(&files.cert, "it contains no certificate".into()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key);
    let key = key.map_err(|error| unreadable(&files.key, error.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|source| Unusable::Pair {
        files: files.clone(),
        source,
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Reloads the files on each SIGHUP, which tools that renew certificates send.
pub(crate) async fn reload_on_hangup(tls: Arc<Tls>, stop: tokio_util::sync::CancellationToken) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => {
                tracing::warn!(%error, "cannot listen for SIGHUP");
                return;
            }
        };
        let work = async {
            while hangups.recv().await.is_some() {
                tls.reload();
            }
        };
        stop.run_until_cancelled(work).await;
    }
    #[cfg(not(unix))]
    {
        drop((tls, stop));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use super::*;

    /// Writer that collects log output.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut log = self.0.lock();
            log.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn certify(files: &TlsFiles) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let pair = (made.cert.pem(), made.signing_key.serialize_pem());
        fs::write(&files.cert, &pair.0).unwrap();
        fs::write(&files.key, &pair.1).unwrap();
        pair
    }

    /// Returns what is logged during `act`.
    fn said(act: impl FnOnce()) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = log.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_bad_file_leaves_the_one_from_before_in_force_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let files = TlsFiles {
            cert: at("cert.pem"),
            key: at("key.pem"),
        };
        let (cert, key) = certify(&files);
        let tls = Tls::open(files.clone()).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let other = other.signing_key.serialize_pem();
        let half = &cert[..cert.len() / 2];
        let broken = cert.replace("MII", "!!!");
        for (what, new_cert, new_key, named) in [
            ("no certificate", Some("hello"), Some(&*key), "cert.pem"),
            ("an empty certificate", Some(""), Some(&*key), "cert.pem"),
            ("half a certificate", Some(half), Some(&*key), "cert.pem"),
            (
                "a damaged certificate",
                Some(&*broken),
                Some(&*key),
                "cert.pem",
            ),
            ("a certificate that is gone", None, Some(&*key), "cert.pem"),
            ("no key", Some(&*cert), Some("hello"), "key.pem"),
            ("an empty key", Some(&*cert), Some(""), "key.pem"),
            (
                "half a key",
                Some(&*cert),
                Some(&key[..key.len() / 2]),
                "key.pem",
            ),
            ("a key that is gone", Some(&*cert), None, "key.pem"),
            (
                "the key of another",
                Some(&*cert),
                Some(&*other),
                "cert.pem",
            ),
            (
                "the key for a certificate",
                Some(&*key),
                Some(&*key),
                "cert.pem",
            ),
        ] {
            let before = Arc::as_ptr(tls.shown.lock().acceptor.config());
            for (path, text) in [(&files.cert, new_cert), (&files.key, new_key)] {
                match text {
                    Some(text) => fs::write(path, text).unwrap(),
                    None => fs::remove_file(path).unwrap(),
                }
            }
            let told = said(|| tls.reload());
            let is_told =
                told.contains("cannot reload the certificate; the previous one stays in use");
            assert!(is_told && told.contains(named), "{what}: {told}");
            assert!(!told.contains("PRIVATE KEY"), "{what}: {told}");
            assert_eq!(
                Arc::as_ptr(tls.shown.lock().acceptor.config()),
                before,
                "{what}"
            );
        }
        let before = Arc::as_ptr(tls.shown.lock().acceptor.config());
        certify(&files);
        let told = said(|| tls.reload());
        assert!(told.contains("certificate reloaded"), "{told}");
        assert_ne!(Arc::as_ptr(tls.shown.lock().acceptor.config()), before);
    }
}
