//! Pretty-prints JSON text token by token: numbers, escapes and the order of keys do not change.

/// `json` over several lines, indented by two spaces a level. The result for text that is not JSON
/// is unspecified.
pub(crate) fn pretty(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut rest = json.trim_ascii();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail.trim_ascii_start();
        match byte {
            b'"' => {
                let end = string_end(tail);
                out.push(byte);
                out.extend_from_slice(&tail[..end]);
                rest = tail[end..].trim_ascii_start();
            }
            b'{' | b'[' => {
                out.push(byte);
                if let Some((close @ (b'}' | b']'), tail)) = rest.split_first() {
                    out.push(*close);
                    rest = tail.trim_ascii_start();
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                break_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            other => out.push(other),
        }
    }
    out
}

fn break_line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    out.resize(out.len() + 2 * depth, b' ');
}

/// The number of bytes from a string's opening quote, excluded, to its closing quote, included.
fn string_end(text: &[u8]) -> usize {
    let mut escaped = false;
    for (index, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn only_white_space_between_tokens_changes() {
        let json = br#" [{"a" : 10.00,"b\"{,":[ ],"c":{"d":[1e400, -0.0,"x: y"]}},null ]"#;
        let expected = "[\n  {\n    \"a\": 10.00,\n    \"b\\\"{,\": [],\n    \"c\": {\n      \"d\": [\n        1e400,\n        \
                        -0.0,\n        \"x: y\"\n      ]\n    }\n  },\n  null\n]";
        assert_eq!(String::from_utf8(pretty(json)).as_deref(), Ok(expected));
    }
}
