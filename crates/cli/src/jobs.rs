//! `hearth jobs`: lists and changes the jobs that a key may see. Never shows prompts or answers.

mod call;
mod print;

use std::io::Write as _;

use anyhow::Context as _;
use clap::ValueEnum;
use proto::{JobId, JobView, ModelName, Op, Timestamp};
use reqwest::{Method, Response, header};
use serde_json::json;

use self::call::call;
use crate::credentials::{Client, Credentials};

/// `hearth jobs list|show|retry|cancel`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// List jobs, newest first.
    List(List),
    /// Show one job, without its prompt and its answer.
    Show {
        #[command(flatten)]
        credentials: Credentials,
        /// Print the relay's JSON.
        #[arg(long)]
        json: bool,
        /// The job's id.
        #[arg(value_name = "ID", value_parser = job_id)]
        job: JobId,
    },
    /// Submit failed or cancelled jobs again, and print the ids of the new jobs.
    Retry(Chosen),
    /// Cancel jobs; running jobs are stopped.
    Cancel(Chosen),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    credentials: Credentials,
    /// Show only jobs in this state; `dead` means failed and not retried since.
    #[arg(long, value_enum, value_name = "STATE")]
    state: Option<State>,
    /// Show only jobs for this model.
    #[arg(long, short, value_name = "NAME")]
    model: Option<ModelName>,
    /// Show only jobs with this operation.
    #[arg(long, value_name = "OP", value_parser = op)]
    op: Option<Op>,
    /// Show only jobs accepted at this time or later: 2026-05-01T12:00:00Z, or milliseconds since
    /// 1970.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Show only jobs accepted before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Show at most this many jobs.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Continue after this cursor, which the previous page printed.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Print `{"jobs": [...], "next": CURSOR or null}`.
    #[arg(long)]
    json: bool,
}

/// The jobs to act on.
#[derive(Debug, clap::Args)]
pub(crate) struct Chosen {
    #[command(flatten)]
    credentials: Credentials,
    /// The ids of the jobs.
    #[arg(required = true, value_name = "ID", value_parser = job_id)]
    jobs: Vec<JobId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// Waiting for an agent.
    Queued,
    /// Running at an agent.
    Leased,
    /// Answered.
    Completed,
    /// Ended with an error.
    Failed,
    /// Cancelled.
    Cancelled,
    /// Failed, and not retried since.
    Dead,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Dead => "dead",
        }
    }
}

fn op(text: &str) -> Result<Op, String> {
    const OPS: [Op; 7] = [
        Op::Chat,
        Op::Generate,
        Op::Embed,
        Op::Pull,
        Op::Copy,
        Op::Delete,
        Op::Create,
    ];
    let op = OPS.into_iter().find(|op| op.as_str() == text);
    op.ok_or_else(|| format!("an operation is one of {}", OPS.map(Op::as_str).join(", ")))
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let millis = text.parse().map(Timestamp).ok();
    let moment = || text.parse::<jiff::Timestamp>().ok();
    let moment = millis.or_else(|| moment().map(|at| Timestamp(at.as_millisecond())));
    moment.ok_or_else(|| "a time is 2026-05-01T12:00:00Z, or milliseconds since 1970".into())
}

fn job_id(text: &str) -> Result<JobId, String> {
    text.parse()
        .map_err(|_| "a job id has 32 hexadecimal digits; `hearth jobs list` shows it".into())
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// One sentence that says what was refused and why.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(list) => list.run().await,
            Self::Show {
                credentials,
                json,
                job,
            } => show(&credentials.client()?, job, json).await,
            Self::Retry(retry) => {
                let again = async |client: &Client, job| {
                    let answer = call(client, Method::POST, &format!("/{job}/retry"), &[]).await?;
                    let made: JobView = read(answer).await?;
                    Ok(made.id.to_string())
                };
                retry.each("retried", again).await
            }
            Self::Cancel(cancel) => {
                let end = async |client: &Client, job| {
                    call(client, Method::DELETE, &format!("/{job}"), &[]).await?;
                    Ok(format!("cancelled {job}"))
                };
                cancel.each("cancelled", end).await
            }
        }
    }
}

impl Chosen {
    /// Applies `act` to each job, also after a failure, and prints its result.
    async fn each(
        self,
        done: &str,
        act: impl AsyncFn(&Client, JobId) -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        let client = self.credentials.client()?;
        let mut refused = 0;
        for job in &self.jobs {
            match act(&client, *job).await {
                Ok(said) => writeln!(std::io::stdout(), "{said}")?,
                Err(error) => {
                    refused += 1;
                    writeln!(std::io::stderr(), "{job} was not {done}: {error:#}")?;
                }
            }
        }
        let all = self.jobs.len();
        anyhow::ensure!(refused == 0, "{refused} of {all} jobs were not {done}");
        Ok(())
    }
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let client = self.credentials.client()?;
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.state.map(|state| ("state", state.as_str().to_owned())));
        query.extend(self.model.map(|model| ("model", model.to_string())));
        query.extend(self.op.map(|op| ("op", op.to_string())));
        query.extend(self.since.map(|at| ("since", at.0.to_string())));
        query.extend(self.until.map(|at| ("until", at.0.to_string())));
        query.extend(self.after.map(|after| ("after", after)));
        let answer = call(&client, Method::GET, "", &query).await?;
        let next = next_page(&answer);
        let mut out = std::io::stdout();
        if self.json {
            let jobs: serde_json::Value = read(answer).await?;
            writeln!(out, "{}", json!({ "jobs": jobs, "next": next }))?;
            return Ok(());
        }
        let jobs: Vec<JobView> = read(answer).await?;
        write!(out, "{}", print::table(&jobs))?;
        if let Some(next) = next {
            writeln!(std::io::stderr(), "there may be more: --after {next}")?;
        }
        Ok(())
    }
}

async fn show(client: &Client, job: JobId, json: bool) -> anyhow::Result<()> {
    let answer = call(client, Method::GET, &format!("/{job}"), &[]).await?;
    let mut out = std::io::stdout();
    if json {
        let job: serde_json::Value = read(answer).await?;
        writeln!(out, "{job}")?;
    } else {
        write!(out, "{}", print::whole(&read(answer).await?))?;
    }
    Ok(())
}

async fn read<T: serde::de::DeserializeOwned>(answer: Response) -> anyhow::Result<T> {
    let read = answer.json().await;
    read.context("the response is not a Hearth relay's; check --relay")
}

/// The cursor in `link: <?…after=CURSOR>; rel="next"`.
fn next_page(answer: &Response) -> Option<String> {
    let link = answer.headers().get(header::LINK)?.to_str().ok()?;
    let (_, after) = link.split_once("after=")?;
    after.split(['>', '&']).next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_listed_and_as_the_relay_writes_it() {
        let noon = Ok(Timestamp(1_777_636_800_000));
        for text in [
            "2026-05-01T12:00:00Z",
            "2026-05-01T14:00:00+02:00",
            "1777636800000",
        ] {
            assert_eq!(moment(text), noon, "{text}");
        }
        for wrong in ["", "noon", "2026-05-01", "1.5"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_operation_is_read_by_its_name() {
        assert_eq!(op("embed"), Ok(Op::Embed));
        assert!(op("Chat").is_err_and(|said| said.contains("chat, generate, embed, pull")));
    }
}
