//! What `--about` prints: name, version, capabilities and settings, in the form of taps built with
//! the Singer SDK.

use serde_json::json;
use textwrap::{Options, WordSplitter, fill};

use crate::cli::Format;
use crate::config::settings::{self, Kind, Setting};

/// What Meltano may rely on.
const CAPABILITIES: [&str; 7] = ["about", "catalog", "discover", "properties", "state", "structured-logging", "test"];

const DESCRIPTION: &str = env!("CARGO_PKG_DESCRIPTION");
const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The most characters that a line of text has.
const WIDTH: usize = 100;

/// A setting for reading: its name and its default, its environment variable, and what it means.
/// Each word of a choice has lines of its own.
fn block(setting: &Setting) -> String {
    let mut block = format!("\n  {} ({})\n      {}\n", setting.name, setting.default_text(), setting.variable());
    let mut add = |head: &str, text: &str| {
        let options = Options::new(WIDTH).initial_indent(head).word_splitter(WordSplitter::NoHyphenation);
        block += &fill(&text.replace('`', ""), options.subsequent_indent(&" ".repeat(head.len())));
        block.push('\n');
    };
    match setting.kind {
        Kind::Choice(words) => {
            add("      ", &format!("{}:", setting.help));
            words().iter().for_each(|(word, meaning)| add("      - ", &format!("{word}: {meaning}")));
        }
        _ => add("      ", &setting.meaning()),
    }
    block
}

/// The text for a format.
pub fn text(format: Format) -> String {
    match format {
        Format::Text => {
            format!(
                "Name: {NAME}\nDescription: {DESCRIPTION}\nVersion: {VERSION}\nCapabilities: {}\n\nSettings, and their \
                 environment variables:\n{}",
                CAPABILITIES.join(", "),
                settings::SETTINGS.iter().map(block).collect::<String>().trim_end()
            )
        }
        Format::Json => {
            let about = json!({
                "name": NAME,
                "description": DESCRIPTION,
                "version": VERSION,
                "capabilities": CAPABILITIES,
                "settings": settings::schema()
            });
            format!("{about:#}")
        }
        Format::Markdown => format!(
            "# `{NAME}`\n\n{DESCRIPTION}\n\nVersion {VERSION}\n\n## Capabilities\n\n{}\n\n## Settings\n\n{}",
            CAPABILITIES.map(|capability| format!("* `{capability}`")).join("\n"),
            settings::table().trim_end()
        ),
    }
}
