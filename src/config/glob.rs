//! A path of `watch` that is a pattern: `src/**/*.js`. Pure: names in, yes or no out.

/// What makes a path a pattern.
const MARKS: [char; 4] = ['*', '?', '[', '{'];

/// What lies below a folder, as a pattern names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    whole: String,
    /// What the folders on the way there have to fit, one after the other, as far as that is known of each by itself.
    way: Vec<String>,
}

/// The folder that a pattern names in full, and what it says of the names below; none for a path that is none.
pub fn split(path: &str) -> Option<(&str, Glob)> {
    let first = path.find(MARKS)?;
    // What is escaped is for the pattern to read.
    let first = path.find('\\').map_or(first, |escaped| escaped.min(first));
    let (folder, below) = path.split_at(path[..first].rfind('/').map_or(0, |slash| slash + 1));
    let below = below.trim_end_matches('/');
    Some((folder, Glob { whole: literal(below), way: way(below) }))
}

/// Whether a path that is a pattern means anything.
///
/// # Errors
/// What is wrong with it.
pub fn check(path: &str) -> Result<(), String> {
    let Some((_, glob)) = split(path) else { return Ok(()) };
    if let Some(at) = ["@(", "+(", "!(", "*(", "?("].iter().find(|group| glob.whole.contains(**group)) {
        return Err(format!("{at}…) is not understood in a pattern"));
    }
    fast_glob::validate(&glob.whole).map_err(|error| error.to_string())
}

/// What was separated by commas, where those inside of braces separate nothing: `src/*.{js,ts},lib`.
pub fn rejoined<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut whole: Vec<String> = Vec::new();
    for piece in pieces {
        match whole.last_mut().filter(|last| is_open(last)) {
            Some(last) => {
                last.push(',');
                last.push_str(piece);
            }
            None => whole.push(piece.to_owned()),
        }
    }
    whole
}

impl Glob {
    /// Whether it means this: by its name, or because it lies in a folder that it names. `path` begins at the folder
    /// that is named in full, without a slash.
    pub fn fits(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        ends.chain([path.len()]).any(|end| fast_glob::glob_match(&self.whole, &path[..end]))
    }

    /// Whether what it means may lie in this folder.
    pub fn leads(&self, folder: &[u8]) -> bool {
        let names = folder.split(|byte| *byte == b'/');
        self.way.iter().zip(names).all(|(part, name)| fast_glob::glob_match(part, name))
    }
}

/// A `!` at the beginning would turn the answer round for the library.
fn literal(text: &str) -> String {
    if text.starts_with('!') { format!("\\{text}") } else { text.to_owned() }
}

fn way(pattern: &str) -> Vec<String> {
    // From `**` on folders may have any name; a brace or class that is open holds a slash.
    let parts = pattern.split('/').take_while(|part| !part.contains("**") && !is_open(part));
    parts.map(literal).collect()
}

fn is_open(part: &str) -> bool {
    let (mut depth, mut in_class) = (0_usize, false);
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next(),
            b']' if in_class => in_class = false,
            _ if in_class => {}
            b'[' => in_class = true,
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    in_class || depth > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_that_is_named_in_full_is_told_from_the_pattern() {
        for (path, expected) in [
            ("src", None),
            ("app/(group)/page.js", None),
            ("a\\b", None),
            ("src/**/*.js", Some(("src/", "**/*.js"))),
            ("*.js", Some(("", "*.js"))),
            ("./lib/*/", Some(("./lib/", "*"))),
            ("/*.conf", Some(("/", "*.conf"))),
            ("/srv/{a,b}/c", Some(("/srv/", "{a,b}/c"))),
            ("pages/\\[id\\]/*.js", Some(("pages/", "\\[id\\]/*.js"))),
            ("src/!x*", Some(("src/", "\\!x*"))),
        ] {
            let found = split(path);
            let found = found.as_ref().map(|(folder, glob)| (*folder, glob.whole.as_str()));
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn a_pattern_means_what_it_fits_and_all_that_is_in_a_folder_that_it_fits() {
        for (pattern, path, expected) in [
            ("**/*.js", "a.js", true),
            ("**/*.js", "x/y/a.js", true),
            ("**/*.js", "x/y/a.css", false),
            ("*.js", "a.js", true),
            ("*.js", "x/a.js", false),
            ("*.{js,ts}", "a.ts", true),
            ("*/src", "one/src/x/a.js", true),
            ("*/src", "one/lib/x/a.js", false),
            ("file?.[ch]", "file1.c", true),
            ("!x*", "!xy", true),
            ("!x*", "y", false),
        ] {
            let (_, glob) = split(pattern).expect("a pattern");
            assert_eq!(glob.fits(path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_folder_is_looked_into_where_something_may_fit() {
        for (pattern, folder, expected) in [
            ("*.js", "x", false),
            ("*.js", "x.js", true),
            ("**/*.js", "x/y", true),
            ("*/src/*.js", "one", true),
            ("*/src/*.js", "one/src", true),
            ("*/src/*.js", "one/lib", false),
            ("*/src/*.js", "one/src/deep", false),
            ("*/src", "one/src/deep", true),
            ("a*/**/*.js", "b", false),
            ("a*/**/*.js", "ab/c/d", true),
            ("{src/one,lib}/*.js", "src/one", true),
            ("{src,lib}/*.js", "test", false),
        ] {
            let (_, glob) = split(pattern).expect("a pattern");
            assert_eq!(glob.leads(folder.as_bytes()), expected, "{pattern} {folder}");
        }
    }

    #[test]
    fn what_means_nothing_is_told() {
        for wrong in ["src/a[", "src/*.{js,ts", "src/*\\", "src/*.@(js|ts)"] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
        for right in ["src", "src/**/*.{js,ts}", "a\\b", "app/(group)/x"] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
    }

    #[test]
    fn a_comma_inside_of_braces_separates_nothing() {
        assert_eq!(rejoined("src/*.{js,ts},lib,a{b,c".split(',')), ["src/*.{js,ts}", "lib", "a{b,c"]);
        assert_eq!(rejoined("\\{a,b[,],c".split(',')), ["\\{a", "b[,]", "c"]);
    }

    proptest::proptest! {
        /// Who is not looked into holds nothing that fits.
        #[test]
        fn what_fits_is_led_to(pattern in "[ab*?{},/!\\[\\]\\\\]{1,12}", path in "[ab/]{1,8}") {
            if check(&pattern).is_ok()
                && let Some((_, glob)) = split(&pattern)
                && glob.fits(path.as_bytes())
            {
                let folders = path.match_indices('/').map(|(end, _)| &path[..end]);
                for folder in folders {
                    assert!(glob.leads(folder.as_bytes()), "{pattern} {path} {folder}");
                }
            }
        }
    }
}
