use std::path::PathBuf;

use secrecy::SecretString;

/// The options of `hearth agent` and `hearth-desktop`. Most can also be set in the environment or
/// in `hearth.toml`; an option on the command line wins.
#[derive(Debug, Clone, Default, clap::Parser)]
pub struct Args {
    /// The URL of the relay to work for [env: HEARTH_RELAY]
    #[arg(long, value_name = "URL")]
    pub relay: Option<String>,
    /// The relay's API key; other users of this machine can see it, so prefer --key-file
    /// [env: HEARTH_KEY]
    #[arg(long, value_name = "KEY")]
    pub key: Option<SecretString>,
    /// A file that contains the API key [env: HEARTH_KEY_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    pub key_file: Option<PathBuf>,
    /// Send the key to another machine over http://, although anyone on the network can read it
    /// [env: HEARTH_PLAIN_HTTP]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub plain_http: Option<bool>,
    /// The engine: auto, ollama, ollama:URL, builtin, builtin:PATH or openai:URL
    /// [env: HEARTH_ENGINE, OLLAMA_HOST]
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<String>,
    /// A file that contains the key of an openai: engine, if it needs one; HEARTH_ENGINE_KEY can
    /// hold the key itself [env: HEARTH_ENGINE_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub engine_key_file: Option<PathBuf>,
    /// The address at which `auto` and `ollama` look for Ollama [default: 127.0.0.1:11434]
    /// [env: OLLAMA_HOST]
    #[arg(long, value_name = "ADDRESS")]
    pub ollama_host: Option<String>,
    /// The model file (GGUF) of the built-in engine [env: HEARTH_MODEL]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Port of the status hub; 0 picks a free port [default: 6001, else 6000]
    /// [env: HEARTH_STATUS_PORT]
    #[arg(long, value_name = "PORT")]
    pub status_port: Option<u16>,
    /// Port of the local HTTP server; 0 picks a free port [default: 5001, else 5000]
    /// [env: HEARTH_HTTP_PORT]
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// Number of jobs that may run at once, 1 to 64 [default: 1] [env: HEARTH_SLOTS]
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// Seconds after which a running job fails; 0 is no limit [default: 1800] [env: HEARTH_JOB_LIMIT]
    #[arg(long, value_name = "SECONDS")]
    pub job_limit: Option<u32>,
    /// Seconds that an engine may be silent before the first line of an answer; then the job is
    /// tried again [default: 1800] [env: HEARTH_FIRST_LINE_TIMEOUT]
    #[arg(long, value_name = "SECONDS")]
    pub first_line_timeout: Option<u32>,
    /// Seconds that an engine may be silent between two lines of an answer; then the job fails
    /// [default: 600] [env: HEARTH_NEXT_LINE_TIMEOUT]
    #[arg(long, value_name = "SECONDS")]
    pub next_line_timeout: Option<u32>,
    /// Let keys with the scope `admin` pull, copy, delete and create models of this engine
    /// [env: HEARTH_ALLOW_MODEL_CHANGES]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_model_changes: Option<bool>,
    /// The name of this machine at the relay [default: its host name] [env: HEARTH_NAME]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The language of tray, overlay, window and notifications: en, pl or ru [default: the system's]
    /// [env: HEARTH_LANGUAGE]
    #[arg(long, value_name = "LANGUAGE")]
    pub language: Option<String>,
    /// The settings file [default: hearth.toml in the user's configuration folder] [env: HEARTH_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print every setting and where it comes from, and the main fixed limits, then exit
    #[arg(long)]
    pub print_config: bool,
}
