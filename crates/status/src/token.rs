use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use crate::private_file;

/// Number of hexadecimal digits of the token: 32 random bytes.
const DIGITS: usize = 64;

/// The secret by which a program of this machine's owner may send commands to the hub.
#[derive(Clone)]
pub struct LocalToken(SecretString);

/// The reason why there is no token.
#[derive(Debug, thiserror::Error)]
#[error("the local token {} cannot be {did}: {source}; {}, and restart Hearth", path.display(), did.remedy())]
pub struct TokenError {
    path: PathBuf,
    did: Did,
    source: io::Error,
}

/// What could not be done with the token.
#[derive(Debug, Clone, Copy)]
enum Did {
    Read,
    Written,
}

impl Did {
    const fn remedy(self) -> &'static str {
        match self {
            Self::Read => "remove the file",
            Self::Written => {
                "make room on the disk, make sure that this user may write to the folder"
            }
        }
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Written => "written",
        })
    }
}

impl LocalToken {
    /// The path of the token in Hearth's data folder.
    #[must_use]
    pub fn path_in(folder: &Path) -> PathBuf {
        folder.join("hub.token")
    }

    /// A token of these random bytes.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(proto::hex::encode(&random).into())
    }

    /// Reads the folder's token. If there is none, it is damaged, or another user could have read
    /// it, makes a new one of `random`.
    ///
    /// # Errors
    /// If the file belongs to another user or is a link, or the folder is not writable.
    pub fn open(folder: &Path, random: [u8; 32]) -> Result<Self, TokenError> {
        let path = Self::path_in(folder);
        let fail = |did| {
            let path = path.clone();
            move |source| TokenError { path, did, source }
        };
        private_file::make_folder(folder).map_err(fail(Did::Written))?;
        match Self::read(&path) {
            Ok(Some(token)) => return Ok(token),
            Ok(None) => {}
            Err(error) if is_wide_open(&path) => {
                tracing::warn!(path = %path.display(), %error, "replacing the local token");
            }
            Err(error) => return Err(fail(Did::Read)(error)),
        }
        let token = Self::new(random);
        private_file::write(&path, token.0.expose_secret().as_bytes())
            .map_err(fail(Did::Written))?;
        Ok(token)
    }

    /// Reads a token; `None` if there is no file or it holds no token.
    ///
    /// # Errors
    /// See [`private_file::read`].
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = private_file::read(path)? else {
            return Ok(None);
        };
        let text = String::from_utf8(bytes).unwrap_or_default();
        let text = text.trim();
        Ok(Self::from_text(text))
    }

    /// A token from its text; `None` if the text is not valid.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let is_token = text.len() == DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_token.then(|| Self(text.into()))
    }

    /// The token's text; send it to the hub only.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Compares in constant time.
    pub(crate) fn is(&self, shown: &[u8]) -> bool {
        self.expose().as_bytes().ct_eq(shown).into()
    }
}

impl fmt::Debug for LocalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalToken(…)")
    }
}

/// Whether the file is our own, but readable by others: its content is no longer secret.
#[cfg(unix)]
fn is_wide_open(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    path.symlink_metadata().is_ok_and(|found| {
        found.is_file()
            && found.mode() & 0o077 != 0
            && found.uid() == rustix::process::geteuid().as_raw()
    })
}

#[cfg(not(unix))]
fn is_wide_open(_: &Path) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        process::Command,
    };

    use super::*;

    #[test]
    fn a_token_is_made_once_and_kept() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("hearth");
        let first = LocalToken::open(&folder, [1; 32]).unwrap();
        let again = LocalToken::open(&folder, [2; 32]).unwrap();
        assert_eq!(first.expose(), again.expose());
        assert_eq!(first.expose(), "01".repeat(32));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&LocalToken::path_in(&folder)), 0o600);
        assert_eq!(mode(&folder), 0o700);
    }

    #[test]
    fn who_removes_the_file_gets_another_token_and_the_old_one_is_void() {
        let home = tempfile::tempdir().unwrap();
        let first = LocalToken::open(home.path(), [1; 32]).unwrap();
        fs::remove_file(LocalToken::path_in(home.path())).unwrap();
        let second = LocalToken::open(home.path(), [3; 32]).unwrap();
        assert_eq!(second.expose(), "03".repeat(32));
        assert!(!second.is(first.expose().as_bytes()));
    }

    #[test]
    fn a_damaged_or_exposed_token_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = LocalToken::path_in(home.path());
        private_file::write(&path, b"half a tok").unwrap();
        assert_eq!(
            LocalToken::open(home.path(), [1; 32]).unwrap().expose(),
            "01".repeat(32)
        );

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(LocalToken::read(&path).is_err());
        assert_eq!(
            LocalToken::open(home.path(), [2; 32]).unwrap().expose(),
            "02".repeat(32)
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn it_is_private_whatever_the_umask_is() {
        let run = Command::new("sh")
            .args(["-c", r#"umask 000 && exec "$0" --exact "$1""#])
            .arg(std::env::current_exe().unwrap())
            .arg("token::tests::a_token_is_made_once_and_kept")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{said}");
        assert!(said.contains("1 passed"), "{said}");
    }

    #[test]
    fn a_token_of_another_user_is_an_error_and_not_replaced() {
        if !rustix::process::geteuid().is_root() {
            ::tests::not_tried("only root gives a file away");
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let path = LocalToken::path_in(home.path());
        let theirs = "ab".repeat(32);
        private_file::write(&path, theirs.as_bytes()).unwrap();
        chown(&path, Some(65_534), None).unwrap();
        let error = LocalToken::open(home.path(), [1; 32]).unwrap_err();
        assert!(error.to_string().contains("65534"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), theirs);

        chown(&path, Some(0), None).unwrap();
        chown(home.path(), Some(65_534), None).unwrap();
        let error = LocalToken::open(home.path(), [1; 32]).unwrap_err();
        assert!(error.to_string().contains("65534"), "{error}");
    }

    #[test]
    fn a_link_in_its_place_is_an_error_that_says_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        symlink("/etc/hostname", LocalToken::path_in(home.path())).unwrap();
        let error = LocalToken::open(home.path(), [1; 32])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("hub.token") && error.contains("remove the file"),
            "{error}"
        );
    }

    #[test]
    fn where_none_can_be_written_nobody_is_told_to_remove_it() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("file"), "").unwrap();
        let error = LocalToken::open(&home.path().join("file/data"), [1; 32])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("write to the folder") && !error.contains("remove"),
            "{error}"
        );
    }

    #[test]
    fn debug_shows_nothing_of_it() {
        assert_eq!(
            format!("{:?}", LocalToken::new([0xab; 32])),
            "LocalToken(…)"
        );
    }
}
