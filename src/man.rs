//! The man page.

use std::io::{Result, Write};

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::cli::Args;
use crate::config::settings::SETTINGS;
use crate::help::{ENVIRONMENT, EXAMPLES, EXIT_CODES, Entry, FILES};

/// The man page, in roff: the sections of man-pages(7).
///
/// # Errors
/// Never: it is made in memory.
pub fn page() -> Result<String> {
    // A date that is empty: roff drops an argument without quotes, and takes the version for the date.
    let man = Man::new(Args::command()).date("\"\"").manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis().to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    settings().to_writer(&mut page)?;
    for (title, entries) in
        [("EXIT STATUS", &EXIT_CODES[..]), ("ENVIRONMENT", &ENVIRONMENT), ("FILES", &FILES), ("EXAMPLES", &EXAMPLES)]
    {
        section(title, entries).to_writer(&mut page)?;
    }
    page.flush()?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn synopsis() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    let words = [
        bold("tap-streamduo"),
        roman(" ["),
        italic("OPTION"),
        roman("]... [-- "),
        italic("TARGET"),
        roman(" ["),
        italic("ARGUMENT"),
        roman("]...]"),
    ];
    roff.text(words);
    roff
}

fn settings() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SETTINGS"]);
    roff.text([roman("The members of the JSON object that "), bold("--config"), roman(" names:")]);
    for setting in &SETTINGS {
        let default = roman(format!(" [{}]", setting.default_text()));
        entry(&mut roff, [bold(setting.name), default], &setting.meaning());
    }
    roff
}

fn section(title: &str, entries: &[Entry]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    for (name, meaning) in entries {
        entry(&mut roff, [bold(*name)], meaning);
    }
    roff
}

fn entry(roff: &mut Roff, name: impl Into<Vec<Inline>>, meaning: &str) {
    roff.control("TP", []);
    roff.text(name);
    roff.text(inline(meaning));
}

/// Markdown's code is bold.
fn inline(markdown: &str) -> Vec<Inline> {
    let parts = markdown.split('`').enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { bold(part) } else { roman(part) }).collect()
}
