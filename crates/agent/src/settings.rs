use std::{io, path::PathBuf, time::Duration};

use engine::{EngineTimes, Spec, Url, parse_host};
use proto::WorkerId;
use secrecy::SecretString;
use telemetry::fixed::comments;

use crate::{
    Args, AtLogin, Folders, Language, Relay,
    file::File,
    fixed,
    folders::NoFolders,
    host_name::host_name,
    origin::{Line, Origin, Resolver, path, shown, switch},
    relay::{engine_key, relay},
    times,
};

pub use ::status::HTTP_PORTS;

/// Check interval of an engine that has no relay to work for.
const ENGINE_LOOK: Duration = Duration::from_secs(15);
/// The default model of the built-in engine, in the cache folder.
const MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

/// All settings, resolved from the flags, the environment, `hearth.toml` and the defaults, in this
/// order of precedence.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The relay to work for; the agent also runs without one.
    pub relay: Option<Relay>,
    /// The engine.
    pub engine: Spec,
    /// The key of an OpenAI-compatible engine, from its file or `HEARTH_ENGINE_KEY`.
    pub engine_key: Option<SecretString>,
    /// The address where Ollama is expected.
    pub ollama: Url,
    /// The model file of the built-in engine.
    pub model: PathBuf,
    /// Ports of the status hub, in the order of trial.
    pub status_ports: Vec<u16>,
    /// Ports of the local HTTP server, in the order of trial.
    pub http_ports: Vec<u16>,
    /// Maximum number of concurrent jobs.
    pub slots: u32,
    /// Timeouts of an engine in another process.
    pub engine_times: EngineTimes,
    /// Maximum time of one job on the engine; `None` for no limit.
    pub job_limit: Option<Duration>,
    /// Whether keys with the scope `admin` may change the engine's models.
    pub allow_model_changes: bool,
    /// The name of this machine at the relay.
    pub name: WorkerId,
    /// The language of tray and overlay.
    pub language: Language,
    /// Origins of web pages that may connect, besides Hearth's own.
    pub origins: Vec<String>,
    /// The folders of this user.
    pub folders: Folders,
    /// The address of the system bus with wake-up signals, from `DBUS_SYSTEM_BUS_ADDRESS`; `None`
    /// for the default.
    pub system_bus: Option<String>,
    /// Interval at which the engine is checked without a relay: 15 s.
    pub engine_look: Duration,
    /// Whether only `--print-config` was asked for.
    pub print_config: bool,
    /// The options that a start at login repeats.
    pub at_login: AtLogin,
    pub(crate) lines: Vec<Line>,
}

/// The reason why the settings are invalid, with the setting and its source.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No home folder.
    #[error(transparent)]
    Folders(#[from] NoFolders),
    /// The settings file cannot be read.
    #[error("{} cannot be read: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        why: io::Error,
    },
    /// The settings file is not valid.
    #[error("{}, line {line}: {problem}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The problem; names the key, never its value.
        problem: String,
    },
    /// A setting is not valid.
    #[error("`{name}` ({from}): {problem}")]
    Value {
        /// The name of the setting.
        name: &'static str,
        /// Where it was set.
        from: Origin,
        /// The problem.
        problem: String,
    },
}

impl TryFrom<Args> for Settings {
    type Error = SettingsError;

    /// Resolves the settings of this process from its arguments, environment and files.
    fn try_from(args: Args) -> Result<Self, SettingsError> {
        Self::resolve(args, &|name| std::env::var(name).ok(), Folders::of_user()?)
    }
}

impl Settings {
    /// Resolves the settings from these sources.
    ///
    /// # Errors
    /// [`SettingsError`] names the invalid setting.
    pub fn resolve(
        args: Args,
        env: &dyn Fn(&str) -> Option<String>,
        folders: Folders,
    ) -> Result<Self, SettingsError> {
        let set = |name| env(name).filter(|value| !value.is_empty());
        let named = args
            .config
            .clone()
            .or_else(|| set("HEARTH_CONFIG").map(PathBuf::from));
        let system_bus = set("DBUS_SYSTEM_BUS_ADDRESS");
        let place = named
            .clone()
            .unwrap_or_else(|| folders.config.join("hearth.toml"));
        let file = File::read(&place, named.is_some())?;
        let mut from = Resolver::new(env, place);
        let relay = relay(&args, &file, &mut from)?;
        let engine_key = engine_key(&args, &file, &mut from)?;
        let engine = from
            .pick("engine", args.engine, file.engine, spec)?
            .or("auto", Spec::Auto);
        let ollama = from.ollama(args.ollama_host, ollama)?;
        let usual_model = folders.cache.join(MODEL);
        let model = from
            .pick("model", shown(&args.model), shown(&file.model), path)?
            .or(&usual_model.display().to_string(), usual_model);
        let status_ports = from
            .pick("status-port", args.status_port, file.status_port, ports)?
            .or("6001, else 6000", ::status::PORTS.to_vec());
        let http_ports = from
            .pick("http-port", args.http_port, file.http_port, ports)?
            .or("5001, else 5000", HTTP_PORTS.to_vec());
        let slots = from
            .pick("slots", args.slots, file.slots, slots)?
            .or("1", 1);
        let job_limit = times::job_limit(args.job_limit, file.job_limit, &mut from)?;
        let engine_times = times::of_engine(
            (args.first_line_timeout, file.first_line_timeout),
            (args.next_line_timeout, file.next_line_timeout),
            &mut from,
        )?;
        let (flag, changes) = (args.allow_model_changes, file.allow_model_changes);
        let allow_model_changes = from
            .pick("allow-model-changes", flag, changes, switch)?
            .or("false", false);
        let host = host_name();
        let name = from
            .pick("name", args.name, file.name, worker_name)?
            .or(host.as_str(), host.clone());
        let system = system_language(env);
        let language = from
            .pick("language", args.language, file.language, language)?
            .or(system.code(), system);
        from.note("origins", &file.origins.join(" "), file.origins.is_empty());

        let mut settings = Self {
            relay,
            engine,
            engine_key,
            ollama,
            model,
            status_ports,
            http_ports,
            slots,
            job_limit,
            engine_times,
            allow_model_changes,
            name,
            language,
            origins: file.origins,
            folders,
            system_bus,
            engine_look: ENGINE_LOOK,
            print_config: args.print_config,
            at_login: AtLogin::default(),
            lines: from.lines(),
        };
        settings.at_login = AtLogin::of(&settings, named.as_deref());
        Ok(settings)
    }

    /// Lists all settings with their sources, for `--print-config`, without secrets, and the main
    /// limits that no option sets.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        for (name, folder) in [
            ("config", &self.folders.config),
            ("data", &self.folders.data),
            ("cache", &self.folders.cache),
        ] {
            text += &format!("# {name} folder: {}\n", folder.display());
        }
        text + &comments(fixed::all())
    }
}

fn spec(text: &str) -> Result<Spec, String> {
    Spec::parse(text).map_err(|error| error.to_string())
}

fn ollama(text: &str) -> Result<Url, String> {
    let host = parse_host(text).map_err(|error| error.to_string())?;
    Ok(host.url)
}

/// Parses the port that is to be used, and no other.
fn ports(text: &str) -> Result<Vec<u16>, String> {
    let port = text
        .parse()
        .map_err(|_| "a port must be a number from 0 to 65535".to_owned())?;
    Ok(vec![port])
}

fn worker_name(text: &str) -> Result<WorkerId, String> {
    WorkerId::new(text).map_err(|error| error.to_string())
}

fn language(text: &str) -> Result<Language, String> {
    Language::of_locale(text).ok_or_else(|| "use en, pl or ru".to_owned())
}

fn slots(text: &str) -> Result<u32, String> {
    let slots = text.parse().ok().filter(|slots| (1..=64).contains(slots));
    slots.ok_or_else(|| "slots must be a number from 1 to 64".to_owned())
}

/// The language of the first variable that is set, in the system's order.
fn system_language(env: &dyn Fn(&str) -> Option<String>) -> Language {
    let mut set = ["LC_ALL", "LC_MESSAGES", "LANG"]
        .into_iter()
        .filter_map(env);
    let locale = set.find(|locale| !locale.is_empty()).unwrap_or_default();
    Language::of_locale(&locale).unwrap_or_default()
}

#[cfg(test)]
mod tests;
