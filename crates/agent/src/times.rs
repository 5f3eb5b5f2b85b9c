//! The time limits of jobs.

use std::time::Duration;

use engine::EngineTimes;
use proto::limits;
use worker::Tuning;

use crate::{SettingsError, origin::Resolver};

/// The longest time that can be set, in seconds: no job waits longer for its answer.
const LONGEST: u64 = limits::DEADLINE_MAX.as_secs();

/// Resolves the maximum time of one job; `None` for no limit.
pub(crate) fn job_limit(
    flag: Option<u32>,
    file: Option<u32>,
    from: &mut Resolver<'_>,
) -> Result<Option<Duration>, SettingsError> {
    let usual = Tuning::default().job_limit.unwrap_or_default();
    let limit = time("job-limit", (flag, file), 0, usual, from)?;
    Ok((!limit.is_zero()).then_some(limit))
}

/// Resolves the timeouts of an engine, each from its option and the settings file.
pub(crate) fn of_engine(
    first_line: (Option<u32>, Option<u32>),
    next_line: (Option<u32>, Option<u32>),
    from: &mut Resolver<'_>,
) -> Result<EngineTimes, SettingsError> {
    let usual = EngineTimes::default();
    let first_line = time("first-line-timeout", first_line, 1, usual.first_line, from)?;
    let next_line = time("next-line-timeout", next_line, 1, usual.next_line, from)?;
    Ok(EngineTimes {
        first_line,
        next_line,
        ..usual
    })
}

fn time(
    name: &'static str,
    (flag, file): (Option<u32>, Option<u32>),
    least: u64,
    usual: Duration,
    from: &mut Resolver<'_>,
) -> Result<Duration, SettingsError> {
    let usual = usual.as_secs();
    let seconds = from
        .pick(name, flag, file, |text| seconds(text, least))?
        .or(&usual.to_string(), usual);
    Ok(Duration::from_secs(seconds))
}

/// Parses a number of seconds.
fn seconds(text: &str, least: u64) -> Result<u64, String> {
    let number = text.parse().ok();
    let number = number.filter(|number| (least..=LONGEST).contains(number));
    number.ok_or_else(|| format!("must be a number of seconds from {least} to {LONGEST}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use crate::{Args, Folders, Settings, SettingsError};

    /// The settings with this option and variable, and the settings file below `home`.
    fn resolve(
        home: &Path,
        job_limit: Option<u32>,
        env: Option<&str>,
    ) -> Result<Settings, SettingsError> {
        let args = Args {
            job_limit,
            ..Args::default()
        };
        let env = |name: &str| env.filter(|_| name == "HEARTH_JOB_LIMIT").map(Into::into);
        Settings::resolve(args, &env, Folders::below(home))
    }

    #[test]
    fn an_engine_may_be_silent_for_as_long_as_is_said() {
        let home = tempfile::tempdir().unwrap();
        let resolve = |args: Args, variable: &str| {
            let env = |name: &str| (name == variable).then(|| "90".to_owned());
            Settings::resolve(args, &env, Folders::below(home.path()))
        };
        let found = |settings: &Settings| {
            let times = &settings.engine_times;
            [times.first_line, times.next_line].map(|time| time.as_secs())
        };
        let settings = resolve(Args::default(), "").unwrap();
        assert_eq!(found(&settings), [1_800, 600]);
        let explained = settings.explain();
        for line in [
            "# first-line-timeout = 1800 # default",
            "# next-line-timeout = 600 # default",
        ] {
            assert!(explained.contains(line), "{line} in:\n{explained}");
        }
        let args = Args {
            first_line_timeout: Some(7),
            ..Args::default()
        };
        let settings = resolve(args, "HEARTH_NEXT_LINE_TIMEOUT").unwrap();
        assert_eq!(found(&settings), [7, 90]);
        let explained = settings.explain();
        for line in [
            "\nfirst-line-timeout = 7 # --first-line-timeout",
            "\nnext-line-timeout = 90 # HEARTH_NEXT_LINE_TIMEOUT",
        ] {
            assert!(explained.contains(line), "{line} in:\n{explained}");
        }
        let args = Args {
            next_line_timeout: Some(0),
            ..Args::default()
        };
        let error = resolve(args, "").unwrap_err().to_string();
        assert!(error.contains("--next-line-timeout"), "{error}");
        assert!(error.contains("seconds from 1 to 604800"), "{error}");
    }

    #[test]
    fn a_job_may_run_for_half_an_hour_unless_its_agent_says_otherwise() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folders::below(home.path()).config;
        fs::create_dir_all(&folder).unwrap();
        let toml = "job-limit = 60";
        let env = Some("90");
        for (toml, option, env, limit, line) in [
            ("", None, None, Some(1_800), "# job-limit = 1800 # default"),
            (toml, None, None, Some(60), "\njob-limit = 60 # "),
            (
                toml,
                None,
                env,
                Some(90),
                "job-limit = 90 # HEARTH_JOB_LIMIT",
            ),
            (toml, Some(0), env, None, "job-limit = 0 # --job-limit"),
        ] {
            fs::write(folder.join("hearth.toml"), toml).unwrap();
            let settings = resolve(home.path(), option, env).unwrap();
            let found = settings.job_limit.map(|limit| limit.as_secs());
            assert_eq!(found, limit, "{toml} {option:?} {env:?}");
            let explained = settings.explain();
            assert!(explained.contains(line), "{line} in:\n{explained}");
        }
        for wrong in ["-1", "1.5", "30m", "604801"] {
            let error = resolve(home.path(), None, Some(wrong))
                .unwrap_err()
                .to_string();
            assert!(error.contains("HEARTH_JOB_LIMIT"), "{error}");
            assert!(error.contains("seconds from 0 to 604800"), "{error}");
        }
    }
}
