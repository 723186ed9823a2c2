//! Takes out of a line what looks like a secret, by the name before it: for texts that people show to others. What
//! has no such name stays; nothing here knows what a secret itself looks like.

use crate::config::exposed::is_secret;

/// What stands in the place of a secret.
const HIDDEN: &str = "[hidden]";

/// The line without `PASSWORD=…`, `--token …`, `"apiKey": …`, `Bearer …` and `//user:…@host`.
pub(super) fn redacted(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut hide = false;
    for piece in line.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        let space = &piece[word.len()..];
        if word.is_empty() {
            out.push_str(space);
            continue;
        }
        // `Authorization: Bearer x`: it is the second word that is to be hidden.
        let scheme = is_scheme(word);
        if hide && !scheme {
            out.push_str(HIDDEN);
            hide = false;
        } else {
            let (shown, next) = word_without(word);
            out.push_str(&shown);
            hide = next || scheme;
        }
        out.push_str(space);
    }
    out
}

fn is_scheme(word: &str) -> bool {
    let bare = word.trim_matches(|c: char| !c.is_ascii_alphabetic());
    bare.eq_ignore_ascii_case("bearer") || bare.eq_ignore_ascii_case("basic")
}

/// A word without its secret, and whether the next word is one.
fn word_without(word: &str) -> (String, bool) {
    if let Some((name, value)) = word.split_once('=')
        && !name.contains("://")
        && names_secret(name)
        && !value.is_empty()
    {
        return (format!("{name}={HIDDEN}"), false);
    }
    if let Some((name, value)) = word.split_once(':')
        && !value.starts_with("//")
        && (names_secret(name) || is_header(name))
    {
        return if value.is_empty() { (word.to_owned(), true) } else { (format!("{name}:{HIDDEN}"), false) };
    }
    let is_option = word.starts_with("--") && names_secret(word);
    (without_password(word), is_option)
}

fn names_secret(written: &str) -> bool {
    let name = written.trim_matches(|c: char| !c.is_ascii_alphanumeric()).replace('-', "_");
    let joined = name.to_ascii_uppercase();
    is_secret(&name, b"x") || joined.ends_with("APIKEY") || joined.ends_with("PASSPHRASE")
}

fn is_header(written: &str) -> bool {
    let name = written.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    ["authorization", "cookie"].iter().any(|header| name.to_ascii_lowercase().ends_with(header))
}

/// `postgres://user:secret@host` without what is between the colon and the last `@` of the host's part.
fn without_password(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A password may hold a slash that its writer forgot to escape.
    let end = rest[end..].find('@').map_or(end, |at| end + at + 1);
    let (host, tail) = rest.split_at(end);
    let query = |tail: &str| match tail.split_once('?') {
        Some((path, _)) => format!("{path}?{HIDDEN}"),
        None => tail.to_owned(),
    };
    match host.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(HIDDEN, |(user, _)| user);
            format!("{scheme}://{user}:{HIDDEN}@{host}{}", query(tail))
        }
        None => format!("{scheme}://{host}{}", query(tail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_taken_out() {
        for (line, expected) in [
            ("DB_PASSWORD=sesame node a.js", "DB_PASSWORD=[hidden] node a.js"),
            ("x --api-token sesame y", "x --api-token [hidden] y"),
            ("x --api-token=sesame  y", "x --api-token=[hidden]  y"),
            ("{\"clientSecret\": \"sesame\", a}", "{\"clientSecret\": [hidden] a}"),
            ("{\"apiKey\":\"sesame\"}", "{\"apiKey\":[hidden]"),
            ("Authorization: Bearer sesame", "Authorization: Bearer [hidden]"),
            ("Authorization: sesame", "Authorization: [hidden]"),
            ("to postgres://me:sesame@db/x failed", "to postgres://me:[hidden]@db/x failed"),
            ("to redis://:ses/ame@db", "to redis://:[hidden]@db"),
            ("GET http://h/x?token=sesame", "GET http://h/x?[hidden]"),
            ("https://sesame@host/x", "https://[hidden]:[hidden]@host/x"),
        ] {
            assert_eq!(redacted(line), expected, "{line}");
        }
        for plain in [
            "api/0 pid 12 generation 1: listens on 0.0.0.0:3000",
            "PORT=3000 KEYBOARD=x max_tokens=",
            "2026-11-23T09:00:00Z INFO  it is ready",
            "  indented  ",
            "see http://127.0.0.1:3000/path",
        ] {
            assert_eq!(redacted(plain), plain);
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(line in "[ -~äß]{0,80}") {
            redacted(&line);
        }
    }
}
