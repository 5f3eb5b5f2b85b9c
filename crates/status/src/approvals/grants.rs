//! Permanent grants and their file.

use std::{io, path::Path};

use proto::{
    Timestamp,
    status::pair::{Allowed, Secret},
};
use serde::{Deserialize, Serialize};

use crate::{LocalToken, private_file};

/// Maximum number of permanent grants.
pub(super) const GRANTS_MAX: usize = 32;

/// The permanent grant of one program, with its own token.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) id: u64,
    pub(super) shown: Allowed,
    pub(super) token: LocalToken,
}

/// A grant as stored in the file.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    shown: Allowed,
    token: Secret,
}

pub(super) fn load(file: &Path) -> io::Result<Vec<Grant>> {
    let Some(bytes) = private_file::read(file)? else {
        return Ok(Vec::new());
    };
    let kept: Vec<Kept> = serde_json::from_slice(&bytes)?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a damaged entry");
    let grant = |kept: Kept| {
        let id = kept.shown.id.parse().map_err(|_| damaged())?;
        let token = LocalToken::from_text(kept.token.expose()).ok_or_else(damaged)?;
        let shown = kept.shown;
        Ok(Grant { id, shown, token })
    };
    kept.into_iter().take(GRANTS_MAX).map(grant).collect()
}

/// Renames a list that cannot be read, unless the new name is taken.
pub(super) fn set_aside(file: &Path, now: Timestamp) -> io::Result<()> {
    let aside = file.with_extension(format!("json.damaged-{}", now.0));
    match std::fs::rename(file, &aside) {
        Ok(()) => {
            let (path, aside) = (file.display(), aside.display());
            tracing::warn!(%path, %aside, "the list of allowed programs cannot be read; it was renamed");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) fn save(file: &Path, grants: &[Grant]) -> io::Result<()> {
    let keep = |grant: &Grant| Kept {
        shown: grant.shown.clone(),
        token: Secret::new(grant.token.expose().to_owned()),
    };
    let kept: Vec<_> = grants.iter().map(keep).collect();
    let mut json = serde_json::to_vec(&kept)?;
    json.push(b'\n');
    private_file::write(file, &json)
}
