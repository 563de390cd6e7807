//! The options of `serve` and `run`, and the sandbox that they ask for.

use std::fs;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::value::RawValue;
use streamduo_sandbox::{Endpoint, Rule, Sandbox, Tls};

#[derive(Args)]
pub(crate) struct Options {
    /// The number of sample records in the stream
    #[arg(long, value_name = "N", default_value_t = 12)]
    records: usize,
    /// Pad the sample records' payloads to this length, in bytes
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    record_bytes: usize,
    /// Write a record for each line of this file, too, which is a payload in JSON
    #[arg(long, value_name = "FILE")]
    payloads: Option<PathBuf>,
    /// A pause before every request is carried out, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency_ms: u64,
    /// Make that pause longer by a random time up to this, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    jitter_ms: u64,
    /// The seed of the random times
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Make that pause longer by this for the first request on each connection, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    connect_ms: u64,
    /// The bytes of answers that all connections together get in a second [default: no limit]
    #[arg(long, value_name = "BYTES_PER_SECOND")]
    bandwidth: Option<NonZeroU64>,
    /// Refuse to read more than this many records at once [default: no limit]
    #[arg(long, value_name = "N")]
    max_records: Option<usize>,
    /// Refuse a read whose answer is longer than this [default: no limit]
    #[arg(long, value_name = "N")]
    max_bytes: Option<usize>,
    /// The status that refuses such a read
    #[arg(long, value_name = "STATUS", default_value_t = 413, value_parser = clap::value_parser!(u16).range(400..600))]
    refuse_with: u16,
    /// Write a sample record each time that this has passed, such as 1s or 200ms, and have the tap
    /// poll every second
    #[arg(long, value_name = "TIME", value_parser = duration)]
    every: Option<Duration>,
    /// Before every Nth UNREAD request that marks, write a record right behind the first unread one
    #[arg(long, value_name = "N")]
    slip_in: Option<NonZeroUsize>,
}

impl Options {
    /// Starts a sandbox on this port, with one stream of sample records. Returns the stream's id,
    /// too.
    pub(crate) fn start(&self, port: u16, tls: Option<Tls>) -> Result<(Sandbox, String)> {
        let builder = Sandbox::builder()
            .port(port)
            .latency(Duration::from_millis(self.latency_ms))
            .jitter(Duration::from_millis(self.jitter_ms))
            .seed(self.seed)
            .connect(Duration::from_millis(self.connect_ms));
        let builder = match self.bandwidth {
            Some(bandwidth) => builder.bandwidth(bandwidth.get()),
            None => builder,
        };
        let builder = match tls {
            Some(tls) => builder.tls(tls),
            None => builder,
        };
        let sandbox = builder.start().with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
        if let Some(max) = self.max_records {
            sandbox.limit_records(max, self.refuse_with);
        }
        if let Some(max) = self.max_bytes {
            sandbox.limit_bytes(max, self.refuse_with);
        }
        let stream = sandbox.create_stream("cars");
        sandbox.fill_sized(&stream, self.records, self.record_bytes);
        if let Some(file) = &self.payloads {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            for (line, number) in text.lines().zip(1..) {
                let is_json = serde_json::from_str::<&RawValue>(line).map(drop);
                is_json.with_context(|| format!("{}: line {number} is not JSON", file.display()))?;
                sandbox.write(&stream, line);
            }
        }
        if let Some(n) = self.slip_in {
            let stream = stream.clone();
            sandbox.script(Rule::on(Endpoint::Mark).every_nth(n.get()).before(move |service| {
                service.slip_in(&stream);
            }));
        }
        if let Some(every) = self.every {
            sandbox.write_every(&stream, every);
        }
        Ok((sandbox, stream))
    }

    /// The tap's settings for the stream, in JSON.
    pub(crate) fn config(&self, sandbox: &Sandbox, stream: &str) -> String {
        let mut config = sandbox.config(stream);
        if self.every.is_some() {
            config["pollIntervalSeconds"] = 1.into();
        }
        format!("{config:#}")
    }
}

/// A time such as 200ms, 1s or 2m.
fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text[..text.len() - unit.len()].parse().ok().filter(|number| *number > 0);
    let duration = match unit {
        "ms" => number.map(Duration::from_millis),
        "s" => number.map(Duration::from_secs),
        "m" => number.and_then(|number| number.checked_mul(60)).map(Duration::from_secs),
        _ => None,
    };
    duration.ok_or_else(|| "must be a whole number above 0 with ms, s or m, such as 1s".to_owned())
}
