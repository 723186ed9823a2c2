//! Which log files of a folder were an app's, although nobody writes to them any more: those of instances that it
//! does not have now, or had before it had several. Pure: names are arguments.
//!
//! The rule errs on the side of leaving files alone, for what is another app's must not go: a number counts as that of
//! an instance only where the name before it is one that clusterd gives by itself, or where the app has several files
//! that differ in nothing else; and never in a name that another app is known to write to.

/// What the names of files end with that no file says otherwise, before the extension.
const DEFAULT: [&str; 2] = ["-out", "-error"];

/// Whether a log file called `base` was the app's that writes to the files of that folder for which `ours` holds.
/// `others`: which names other apps write to.
pub fn was_of_app(base: &str, ours: impl Fn(&str) -> bool, others: impl Fn(&str) -> bool) -> bool {
    let (stem, extension) = match base.rsplit_once('.') {
        Some((stem, extension)) => (stem, format!(".{extension}")),
        None => (base, String::new()),
    };
    let stem = without_number(stem).unwrap_or(stem);
    let of = |instance: u32| format!("{stem}-{instance}{extension}");
    let is_default = DEFAULT.iter().any(|end| stem.len() > end.len() && stem.ends_with(end));
    let has_one = || ours(&format!("{stem}{extension}")) || ours(&of(0));
    let has_several = || ours(&of(0)) && ours(&of(1));
    !others(base) && ((is_default && has_one()) || has_several())
}

/// `api-out` of `api-out-12`.
fn without_number(stem: &str) -> Option<&str> {
    let (name, number) = stem.rsplit_once('-')?;
    let is_number = number.parse::<u32>().is_ok_and(|parsed| parsed.to_string() == number);
    (is_number && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_have_been_an_instances_file_was_the_apps() {
        let one = ["api-out.log", "api-error.log"];
        let two = ["api-out-0.log", "api-out-1.log"];
        let named = ["web.log"];
        let several = ["web-0.log", "web-1.log"];
        let last = ["web-1.log"];
        for (ours, base, expected) in [
            (&one[..], "api-out-0.log", true),
            (&one, "api-error-12.log", true),
            (&one, "api-out-00.log", false),
            (&one, "api-out-x.log", false),
            (&one, "other-out-0.log", false),
            (&one, "api-1-out.log", false),
            (&one, "api-out-out.log", false),
            (&one, "api-out-0.txt", false),
            (&one, "api-out-3.log", false),
            (&two, "api-out-7.log", true),
            (&two, "api-out.log", true),
            (&two, "api-error-0.log", false),
            // Somebody else's, for all that is known.
            (&named, "web-1.log", false),
            (&last, "web-2.log", false),
            (&last, "web.log", false),
            (&several, "web-2.log", true),
            (&several, "web.log", true),
        ] {
            let was = was_of_app(base, |name| ours.contains(&name), |name| name == "api-out-3.log");
            assert_eq!(was, expected, "{base} beside {ours:?}");
        }
    }
}
