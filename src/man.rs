//! The man page: clap's, and the settings from the table.

use std::io::Result;

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::Args;
use crate::config::settings::SETTINGS;

/// The man page, in roff.
pub fn page() -> Result<String> {
    // An empty date: without quotes, roff drops the argument, and takes the version for the date.
    let man = Man::new(Args::command()).date("\"\"").manual("User Commands");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut settings = Roff::new();
    settings.control("SH", ["SETTINGS"]);
    settings.text([roman("The members of the JSON object that --config names.")]);
    for setting in &SETTINGS {
        settings.control("TP", []);
        settings.text([bold(setting.name), roman(format!(" [{}]", setting.default_text()))]);
        settings.text([roman(setting.meaning())]);
    }
    settings.to_writer(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
