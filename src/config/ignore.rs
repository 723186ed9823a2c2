//! Which files below a watched folder are not looked at: patterns as in `.gitignore`. Pure: names in, yes or no
//! out.

/// What is ignored wherever it lies, unless `ignore_watch` takes it back (`"!.env"`): what tools keep for themselves,
/// what is installed, what servers write while they run. What compilers write (`dist`, `build`) is not among it, since
/// that is what runs.
pub const USUAL: &[&str] = &[
    // Dotfiles: .git, swap files of editors, caches.
    ".*",
    "*~",
    "#*#",
    "node_modules/",
    "bower_components/",
    "vendor/",
    "venv/",
    "__pycache__/",
    "*.pyc",
    "target/",
    "coverage/",
    "tmp/",
    "log/",
    "logs/",
    "*.log",
    "*.pid",
];

/// Patterns that decide together: of those that fit the last holds.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    /// It takes back what an earlier one ignores.
    keeps: bool,
    /// Only folders are meant.
    folders: bool,
    /// It is about the whole path from the watched folder on, not about the last name alone.
    anchored: bool,
    glob: String,
}

/// Whether a pattern means anything.
///
/// # Errors
/// What is wrong with it.
pub fn check(pattern: &str) -> Result<(), String> {
    let rule = Rule::of(pattern).ok_or("it names no file")?;
    fast_glob::validate(&rule.glob).map_err(|error| error.to_string())
}

impl Rules {
    /// [`USUAL`], then these.
    pub fn new(patterns: &[String]) -> Rules {
        let all = USUAL.iter().copied().chain(patterns.iter().map(String::as_str));
        Rules { rules: all.filter_map(Rule::of).collect() }
    }

    /// Whether a file or folder is not looked at. `path` begins at the watched folder, without a slash; the folders
    /// above it are not ignored.
    pub fn ignores(&self, path: &[u8], is_folder: bool) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let fits = |rule: &&Rule| {
            (is_folder || !rule.folders)
                && fast_glob::glob_match(&rule.glob, if rule.anchored { path } else { name })
        };
        self.rules.iter().rev().find(fits).is_some_and(|rule| !rule.keeps)
    }
}

impl Rule {
    /// None for what gitignore(5) skips: nothing, and remarks.
    fn of(pattern: &str) -> Option<Rule> {
        let text = pattern.trim_end();
        if text.is_empty() || text.starts_with('#') && !USUAL.contains(&text) {
            return None;
        }
        let (keeps, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let text = text.strip_prefix("./").unwrap_or(text);
        let (folders, text) = text.strip_suffix('/').map_or((false, text), |rest| (true, rest));
        let anchored = text.contains('/');
        let text = text.strip_prefix('/').unwrap_or(text);
        // It would turn the answer round for the library.
        let glob = if text.starts_with('!') { format!("\\{text}") } else { text.to_owned() };
        (!glob.is_empty()).then_some(Rule { keeps, folders, anchored, glob })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(patterns: &[&str], path: &str, is_folder: bool) -> bool {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        Rules::new(&patterns).ignores(path.as_bytes(), is_folder)
    }

    #[test]
    fn patterns_mean_what_they_mean_in_gitignore() {
        for (pattern, path, is_folder, expected) in [
            ("*.tmp", "a/b/c.tmp", false, true),
            ("*.tmp", "a/b/c.tmp.js", false, false),
            ("data", "x/data", false, true),
            ("data", "x/data", true, true),
            ("data/", "x/data", false, false),
            ("data/", "x/data", true, true),
            ("/data", "data", true, true),
            ("/data", "x/data", true, false),
            ("./data", "data", true, true),
            ("public/uploads", "public/uploads", true, true),
            ("public/uploads", "x/public/uploads", true, false),
            ("public/*", "public/a", false, true),
            ("public/*", "public/a/b", false, false),
            ("public/**", "public/a/b", false, true),
            ("**/gen/*.js", "gen/a.js", false, true),
            ("**/gen/*.js", "x/y/gen/a.js", false, true),
            ("a/**/b", "a/b", false, true),
            ("a/**/b", "a/x/y/b", false, true),
            ("file?.[ch]", "x/file1.c", false, true),
            ("file?.[ch]", "x/file10.c", false, false),
            ("*.{css,map}", "a/b.map", false, true),
            ("\\!odd", "x/!odd", false, true),
            ("!odd", "x/!odd", false, false),
        ] {
            assert_eq!(ignored(&[pattern], path, is_folder), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn the_usual_is_ignored_until_it_is_taken_back() {
        for (path, is_folder) in [
            (".git", true),
            ("src/.server.js.swp", false),
            ("src/server.js~", false),
            ("src/#server.js#", false),
            ("node_modules", true),
            ("packages/a/node_modules", true),
            ("x/__pycache__", true),
            ("log", true),
            ("debug.log", false),
        ] {
            assert!(ignored(&[], path, is_folder), "{path}");
        }
        for path in ["server.js", "dist", "4913", "log"] {
            assert!(!ignored(&[], path, false), "{path}");
        }
        assert!(!ignored(&["!.env"], ".env", false));
        assert!(!ignored(&["!vendor/"], "vendor", true));
        assert!(ignored(&["!*.log", "a.log"], "a.log", false), "the last that fits holds");
    }

    #[test]
    fn what_means_nothing_is_told() {
        for wrong in ["", "  ", "# remark", "!", "/", "a[", "{a,b", "x\\"] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
        assert!(check("src/**/*.js").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(pattern in "[a-z*?!/\\[\\]{},.\\\\-]{0,20}", path in "[a-z/.]{0,20}") {
            let rules = Rules::new(&[pattern]);
            rules.ignores(path.as_bytes(), false);
        }
    }
}
