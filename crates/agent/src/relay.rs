//! The relay to work for, and its API key.

use std::{fs, path::PathBuf};

use engine::{Url, is_loopback};
use secrecy::SecretString;

use crate::{
    Args, Origin, SettingsError,
    file::File,
    origin::{Resolver, path, shown, switch},
};

/// A relay and its API key.
#[derive(Debug, Clone)]
pub struct Relay {
    /// The URL.
    pub url: Url,
    /// The API key.
    pub key: SecretString,
    /// Whether the owner allowed `http://` to another machine.
    pub plain_http: bool,
}

/// Resolves the relay; `None` if none is set.
pub(crate) fn relay(
    args: &Args,
    file: &File,
    from: &mut Resolver<'_>,
) -> Result<Option<Relay>, SettingsError> {
    let plain_http = from
        .pick("plain-http", args.plain_http, file.plain_http, switch)?
        .or("false", false);
    let read = |text: &str| relay_url(text, plain_http);
    let url = from
        .pick("relay", args.relay.as_ref(), file.relay.as_ref(), read)?
        .found();
    let key = key(args, file, from)?;
    if key.is_none() {
        from.note("key", "(not set)", true);
    }
    let Some(url) = url else {
        from.note("relay", "(not set)", true);
        return Ok(None);
    };
    let Some(key) = key else {
        return Err(SettingsError::Value {
            name: "relay",
            from: from.origin_of("relay"),
            problem: "the relay needs a key: use --key-file FILE or HEARTH_KEY \
                      (create one on the relay's server: \
                      `hearth key create --name NAME --scope work`)"
                .to_owned(),
        });
    };
    Ok(Some(Relay {
        url,
        key,
        plain_http,
    }))
}

fn relay_url(text: &str, plain_http: bool) -> Result<Url, String> {
    let url: Url = text
        .parse()
        .map_err(|error| format!("not a valid URL: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL must not contain a user name or password; use --key-file".to_owned());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if plain_http || is_loopback(&url) => Ok(url),
        "http" => Err(
            "anyone on the network could read the key; use https://, or allow it with \
                       --plain-http"
                .to_owned(),
        ),
        other => Err(format!("the URL must begin with https://, not {other}://")),
    }
}

/// The key, or the file that contains it, from the source with the highest precedence.
fn key(
    args: &Args,
    file: &File,
    from: &mut Resolver<'_>,
) -> Result<Option<SecretString>, SettingsError> {
    if let Some(key) = &args.key {
        from.secret("key", Origin::Flag("key"));
        return Ok(Some(key.clone()));
    }
    if args.key_file.is_none()
        && let Some(key) = from.env("HEARTH_KEY")
    {
        from.secret("key", Origin::Env("HEARTH_KEY".to_owned()));
        return Ok(Some(key.into()));
    }
    key_of_file("key-file", &args.key_file, &file.key_file, from)
}

/// The engine's key, or the file that contains it, from the source with the highest precedence.
pub(crate) fn engine_key(
    args: &Args,
    file: &File,
    from: &mut Resolver<'_>,
) -> Result<Option<SecretString>, SettingsError> {
    const VARIABLE: &str = "HEARTH_ENGINE_KEY";
    if args.engine_key_file.is_none()
        && let Some(key) = from.env(VARIABLE)
    {
        from.secret("engine-key", Origin::Env(VARIABLE.to_owned()));
        return Ok(Some(key.into()));
    }
    let (flag, file) = (&args.engine_key_file, &file.engine_key_file);
    key_of_file("engine-key-file", flag, file, from)
}

fn key_of_file(
    name: &'static str,
    flag: &Option<PathBuf>,
    file: &Option<PathBuf>,
    from: &mut Resolver<'_>,
) -> Result<Option<SecretString>, SettingsError> {
    let path = from.pick(name, shown(flag), shown(file), path)?.found();
    let Some(path) = path else { return Ok(None) };
    let invalid = |problem| SettingsError::Value {
        name,
        from: from.origin_of(name),
        problem: format!("the file {} {problem}", path.display()),
    };
    let text =
        fs::read_to_string(&path).map_err(|why| invalid(format!("cannot be read: {why}")))?;
    match text.trim() {
        "" => Err(invalid("is empty".to_owned())),
        key => Ok(Some(key.into())),
    }
}
