//! The documents' links lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::tap::repository_file;

/// All documents of the repository.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<_> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(repository_file).into();
    for folder in ["docs", "benches", "deploy", "tests/sandbox"] {
        add_documents(&repository_file(folder), &mut found);
    }
    found
}

fn add_documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The text without its blocks of code, in which a bracket is not a link and `#` not a heading.
fn prose(text: &str) -> String {
    Regex::new(r"(?ms)^```.*?^```$").unwrap().replace_all(text, "").into_owned()
}

/// What a document links to, and the pictures that it shows.
fn links(text: &str) -> Vec<String> {
    let link = Regex::new(r#"\]\(([^)\s]+)\)|src="([^"]+)""#).unwrap();
    let target = |found: regex::Captures<'_>| found.get(1).or(found.get(2)).unwrap().as_str().to_owned();
    link.captures_iter(&prose(text)).map(target).filter(|link| !link.contains("://")).collect()
}

/// The anchors of a document's headings, as GitHub and GitLab make them.
fn anchors(text: &str) -> Vec<String> {
    let text = prose(text);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
        heading.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { document.clone() } else { document.with_file_name("").join(path) };
            let leads = target.exists()
                && (anchor.is_empty() || anchors(&fs::read_to_string(&target).unwrap()).contains(&anchor.to_owned()));
            if !leads {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn every_page_is_linked_from_the_readme() {
    let links = links(&fs::read_to_string(repository_file("README.md")).unwrap());
    for entry in fs::read_dir(repository_file("docs")).unwrap() {
        let page = format!("docs/{}", entry.unwrap().file_name().into_string().unwrap());
        assert!(links.iter().any(|link| link.split('#').next() == Some(&page)), "{page}");
    }
}
