//! Takes secrets out of a text that the service has sent.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};

/// What stands in the place of a secret.
const REDACTED: &str = "[secret]";

/// What is shorter, in characters, is found by chance in too many texts.
const SHORT: usize = 4;

/// The text without the secrets. A secret is found
///
/// - as it is, and with any of its characters escaped as in a URL, a form, HTML or JSON, or in hexadecimal digits;
/// - as base64, also within a longer text such as `id:secret`, but for a character at either end that it shares with its
///   neighbours;
/// - where the end of the text cuts it off;
/// - in capital or small letters.
///
/// Of a text that holds a secret of fewer than 4 characters nothing is left: the gaps in its words would tell the secret.
pub fn redact(secrets: &[SecretString], text: &str) -> String {
    let secrets = secrets.iter().map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty());
    let (short, long): (Vec<_>, Vec<_>) = secrets.partition(|secret| secret.chars().count() < SHORT);
    let short = Forms::new(short.into_iter().map(str::to_owned).collect());
    if text.char_indices().any(|(at, _)| short.longest_at(&text[at..]).is_some()) {
        return REDACTED.to_owned();
    }
    let long = Forms::new(long.into_iter().flat_map(|secret| in_base64(secret).chain([secret.to_owned()])).collect());
    // Secrets that overlap go as one, and what was put in is not looked at again.
    let (mut redacted, mut end_of_secret) = (String::with_capacity(text.len()), 0);
    for (at, character) in text.char_indices() {
        if let Some(length) = long.longest_at(&text[at..]) {
            if at >= end_of_secret {
                redacted.push_str(REDACTED);
            }
            end_of_secret = end_of_secret.max(at + length);
        }
        if at >= end_of_secret {
            redacted.push(character);
        }
    }
    redacted
}

/// The secret in base64 (RFC 4648 sections 4 and 5): where nothing, one byte or two bytes of a group of three precede it, where
/// it ends the text, with and without padding, and where something follows.
fn in_base64(secret: &str) -> impl Iterator<Item = String> {
    let mut forms = Vec::new();
    for (before, shared) in [(0, 0), (1, 2), (2, 3)] {
        let bytes = [&[0; 2][..before], secret.as_bytes()].concat();
        let (whole, last_group) = (bytes.len() * 8 / 6, bytes.len() % 3);
        for encoded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            forms.push(encoded[shared..whole].to_owned());
            forms.push(encoded[shared..].to_owned());
            forms.push(format!("{}{}", &encoded[shared..], ["", "==", "="][last_group]));
        }
    }
    forms.into_iter()
}

/// Texts to look for.
struct Forms {
    forms: BTreeSet<String>,
    /// How each of their characters may be written.
    spellings: BTreeMap<char, Vec<String>>,
}

impl Forms {
    fn new(forms: BTreeSet<String>) -> Forms {
        let characters: BTreeSet<char> = forms.iter().flat_map(|form| form.chars()).collect();
        let spellings = characters.into_iter().map(|character| (character, spellings(character))).collect();
        Forms { forms, spellings }
    }

    /// The length of the longest form that the text begins with.
    fn longest_at(&self, text: &str) -> Option<usize> {
        self.forms.iter().filter_map(|form| self.length_of(form, text.as_bytes())).max()
    }

    /// The length of this form, if the text begins with it, or is cut off within it.
    fn length_of(&self, form: &str, text: &[u8]) -> Option<usize> {
        let mut ends = BTreeSet::from([0]);
        for (index, character) in form.chars().enumerate() {
            if index >= SHORT && ends.contains(&text.len()) {
                break;
            }
            let spellings = &self.spellings[&character];
            let next = |end: usize| spellings.iter().filter_map(move |it| Some(end + begins_with(&text[end..], it)?));
            ends = ends.into_iter().flat_map(next).collect();
            if ends.is_empty() {
                return None;
            }
        }
        ends.pop_last()
    }
}

/// How much of the text is this spelling, which the end of the text may cut off.
fn begins_with(text: &[u8], spelling: &str) -> Option<usize> {
    let length = text.len().min(spelling.len());
    (length > 0 && text[..length].eq_ignore_ascii_case(&spelling.as_bytes()[..length])).then_some(length)
}

/// How a character may be written, whether or not it has to be escaped.
fn spellings(character: char) -> Vec<String> {
    let bytes = || character.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
    let units: String = character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
    let in_json = serde_json::Value::from(character.to_string()).to_string();
    let code = u32::from(character);
    let mut spellings = vec![
        character.to_string(),
        bytes().concat(),
        bytes().iter().map(|byte| format!("%{byte}")).collect(),
        // PHP writes an apostrophe with a leading zero.
        format!("&#{code};"),
        format!("&#0{code};"),
        format!("&#x{code:x};"),
        in_json[1..in_json.len() - 1].to_owned(),
        units,
    ];
    let more: &[&str] = match character {
        ' ' => &["+"],
        '/' => &["\\/"],
        '&' => &["&amp;"],
        '<' => &["&lt;"],
        '>' => &["&gt;"],
        '"' => &["&quot;"],
        '\'' => &["&apos;"],
        _ => &[],
    };
    spellings.extend(more.iter().map(|&spelling| spelling.to_owned()));
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(secrets: &[&str], text: &str) -> String {
        let secrets: Vec<_> = secrets.iter().map(|&secret| SecretString::from(secret)).collect();
        redact(&secrets, text)
    }

    #[test]
    fn a_secret_is_taken_out_however_it_is_escaped() {
        let secret = "pa/s\"s' w&<ö>+";
        for form in [
            secret,
            // JSON: as serde_json, PHP and Go write it.
            r#"pa/s\"s' w&<ö>+"#,
            r#"pa\/s\"s' w&<\u00f6>+"#,
            r#"pa/s\"s' w\u0026\u003c\u00F6\u003e+"#,
            // A form and a path, in capital and small letters.
            "pa%2Fs%22s%27+w%26%3C%C3%B6%3E%2B",
            "pa%2fs%22s%27%20w%26%3c%c3%b6%3e%2b",
            "pa/s%22s'%20w&%3C%C3%B6%3E+",
            // HTML: as PHP, Python and Go write it.
            "pa/s&quot;s&#039; w&amp;&lt;ö&gt;+",
            "pa/s&quot;s&#x27; w&amp;&lt;ö&gt;+",
            "pa&#x2F;s&#34;s&#39; w&amp;&lt;&#246;&gt;&#43;",
            "pa/s&quot;s&apos; w&amp;&lt;ö&gt;+",
            // Hexadecimal.
            "70612f732273272077263cc3b63e2b",
            "70612F732273272077263CC3B63E2B",
        ] {
            assert_eq!(without(&[secret], &format!("a {form}, {form}.")), "a [secret], [secret].", "{form}");
        }
    }

    #[test]
    fn a_secret_is_taken_out_as_base64() {
        use base64::engine::general_purpose::{STANDARD, URL_SAFE};
        for secret in ["~~~???>>>", "~~~???>>>1", "~~~???>>>12"] {
            for encoded in [
                STANDARD.encode(secret),
                STANDARD_NO_PAD.encode(secret),
                URL_SAFE.encode(secret),
                URL_SAFE_NO_PAD.encode(secret),
                STANDARD.encode(secret).replace('+', "%2B").replace('/', "%2f").replace('=', "%3D"),
            ] {
                assert_eq!(without(&[secret], &format!("it is <{encoded}>")), "it is <[secret]>", "{encoded}");
            }
        }
    }

    #[test]
    fn a_secret_is_taken_out_of_a_longer_text_in_base64() {
        let secret = "correct horse";
        for id in ["", "x", "xy", "xyz"] {
            for end in ["", "?", "??", "???"] {
                let encoded = STANDARD_NO_PAD.encode(format!("{id}{secret}{end}"));
                let redacted = without(&[secret], &encoded);
                let (before, after) = redacted.split_once("[secret]").unwrap();
                assert!(before.len() <= id.len() + 2 && after.len() <= end.len() + 2, "{redacted}");
            }
        }
    }

    #[test]
    fn a_replacement_is_not_replaced() {
        assert_eq!(without(&["secret", "cret"], "a secret, a cret"), "a [secret], a [secret]");
        assert_eq!(without(&["hunter22", "[secret]"], "hunter22 [secret]"), "[secret] [secret]");
    }

    #[test]
    fn secrets_that_overlap_are_taken_out_as_one() {
        assert_eq!(without(&["abcdef", "defghi"], "<abcdefghi>"), "<[secret]>");
        assert_eq!(without(&["abcd", "abcdefgh"], "<abcdefgh><abcd>"), "<[secret]><[secret]>");
    }

    #[test]
    fn a_secret_that_the_end_cuts_off_is_taken_out() {
        assert_eq!(without(&["hunter22"], "it is hunter2"), "it is [secret]");
        assert_eq!(without(&["hunt&22"], "it is hunt&am"), "it is [secret]");
        assert_eq!(without(&["hunter22"], "it is hun"), "it is hun");
    }

    #[test]
    fn nothing_is_left_of_a_text_that_holds_a_short_secret() {
        assert_eq!(without(&["e"], "no client with this secret"), "[secret]");
        assert_eq!(without(&["e"], "no"), "no");
        assert_eq!(without(&["", "hunter22"], "no hunter22"), "no [secret]");
    }
}
