//! What `--about` prints: name, version, capabilities and settings, in the form of taps built with the Singer SDK.

use serde_json::json;

use crate::cli::Format;
use crate::config::settings;

/// What Meltano may rely on.
const CAPABILITIES: [&str; 7] = ["about", "catalog", "discover", "properties", "state", "structured-logging", "test"];

const DESCRIPTION: &str = env!("CARGO_PKG_DESCRIPTION");
const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The text for a format.
pub fn text(format: Format) -> String {
    match format {
        Format::Text => {
            let settings =
                settings::SETTINGS.iter().map(|setting| format!("  - {} ({})", setting.name, setting.variable()));
            format!(
                "Name: {NAME}\nDescription: {DESCRIPTION}\nVersion: {VERSION}\nCapabilities:\n{}\nSettings (and their \
                 environment variables):\n{}",
                CAPABILITIES.map(|capability| format!("  - {capability}")).join("\n"),
                settings.collect::<Vec<_>>().join("\n")
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
