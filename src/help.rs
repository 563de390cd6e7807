//! What `--help` and the man page say beside the options.

/// A name, and what it means. The meaning is Markdown, as in the table of settings.
pub type Entry = (&'static str, &'static str);

/// The exit codes.
pub const EXIT_CODES: [Entry; 5] = [
    ("0", "the stream is drained, or what was asked for is printed"),
    ("1", "the run failed; what was not delivered is not marked as read"),
    (
        "2",
        "the command line, the configuration, a file named there, or a variable for proxy or certificates is wrong, or the target \
         cannot be started",
    ),
    ("3", "the target failed, or did not commit everything; what it has committed is marked as read"),
    ("128 + n", "stopped by signal n (143: SIGTERM, 130: SIGINT)"),
];

/// The environment variables.
pub const ENVIRONMENT: [Entry; 5] = [
    ("TAP_STREAMDUO_<SETTING>", "with --config ENV: a setting, its name in capitals"),
    ("TAP_STREAMDUO_LOGLEVEL", "DEBUG, INFO, WARNING, ERROR or CRITICAL; else LOGLEVEL, else RUST_LOG, else INFO"),
    ("NO_COLOR", "no colours in the log at a terminal"),
    ("HTTPS_PROXY, NO_PROXY", "the proxy, as other programs read it"),
    ("SSL_CERT_FILE, SSL_CERT_DIR", "on Linux: the CAs to trust, in place of the system's"),
];

/// The files that the command line names.
pub const FILES: [Entry; 3] = [
    ("--config FILE", "a JSON object with the members under SETTINGS"),
    ("--state FILE", "the `value` of a STATE message, as a target prints it"),
    ("--catalog FILE", "the catalog, as `--discover` prints it"),
];

/// What is usually asked of the tap.
pub const EXAMPLES: [Entry; 5] = [
    ("tap-streamduo -c config.json --test", "Check the settings and peek. Nothing is marked as read."),
    ("tap-streamduo -c config.json --peek 3", "Show the 3 oldest unread records. Nothing is marked as read."),
    ("tap-streamduo -c config.json -- target-jsonl", "Load, and mark as read what the target has committed."),
    ("tap-streamduo -c config.json --follow -- target-jsonl", "Go on polling, until SIGTERM or Ctrl-C."),
    ("tap-streamduo -c config.json | target-jsonl", "Write into a pipe, and mark as read what is written."),
];

/// The most characters that a line of help has.
pub const WIDTH: usize = 110;

/// What `--help` says below the options.
pub fn after_help() -> String {
    format!("Exit codes:\n{}\n\nEnvironment:\n{}", table(&EXIT_CODES), table(&ENVIRONMENT))
}

fn table(entries: &[Entry]) -> String {
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let rows: Vec<_> = entries.iter().map(|(name, text)| wrapped(&format!("  {name:width$}  "), text)).collect();
    rows.join("\n")
}

/// The text in lines of no more than [`WIDTH`] characters. The first one begins with `head`, the others with as much space.
pub fn wrapped(head: &str, text: &str) -> String {
    let indent = head.chars().count();
    let (mut lines, mut used) = (head.to_owned(), indent);
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > indent && used + 1 + length > WIDTH {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            used = indent;
        } else if used > indent {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_wrapped_under_its_beginning() {
        let text = wrapped("  2  ", &["wrong"; 40].join(" "));
        assert_eq!(text.replace("wrong", "").replace([' ', '\n'], ""), "2");
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("     wrong")), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
