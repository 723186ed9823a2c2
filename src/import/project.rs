//! A project → its first ecosystem file, for `init`: what is started how is read from the files that its
//! language has anyway. What a file cannot say stands there as a remark, to be switched on.

use super::app::allowed;
use super::document::{Document, Line, Table, single_line};
use super::problems::Problems;
use super::tree::{Node, Value};
use super::{Facts, Import, json, python};
use crate::config::error::Diagnostics;

/// A folder, as far as anybody may look into it.
pub struct Project<'p> {
    /// Its name.
    pub folder: &'p str,
    /// The text of a file in it; none where there is none that can be read.
    pub text: &'p dyn Fn(&str) -> Option<String>,
    /// Whether a file or folder is there.
    pub exists: &'p dyn Fn(&str) -> bool,
    /// The names in a folder, which is written with a slash at its end; nothing is the project's own.
    pub entries: &'p dyn Fn(&str) -> Vec<String>,
}

/// The file for a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drafted {
    /// The ecosystem file.
    pub text: String,
    /// What it was made from; none where nothing was found, and the small server of the example runs.
    pub from: Option<String>,
    /// PM2's file that is there as well.
    pub pm2: Option<String>,
    /// What is wrong with files that should have said something.
    pub problems: Vec<Diagnostics>,
}

/// What was found, and the apps that it means.
pub(super) struct Found {
    pub(super) from: String,
    pub(super) apps: Vec<Table>,
    /// What could not become an app.
    pub(super) tail: Vec<String>,
}

/// Files that people have for PM2.
pub const PM2S: [&str; 9] = [
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
    "ecosystem.json",
    "ecosystem.yaml",
    "ecosystem.yml",
    "process.json",
    "process.yml",
    "pm2.config.js",
];

/// Drafts the file.
pub fn draft(project: &Project<'_>) -> Drafted {
    let mut problems = Vec::new();
    let looks = [procfile(project, &mut problems), node(project, &mut problems)];
    let mut found = looks.into_iter().chain([ruby(project), go(project), python::found(project)]).flatten();
    let first = found.next();
    let others: Vec<String> = found.map(|found| found.from).collect();
    let pm2 = PM2S.iter().find(|name| (project.exists)(name)).map(|name| (*name).to_owned());
    let mut document = Document::default();
    let head = &mut document.head;
    head.push(
        "What clusterd runs here, and how. Every key, with its default: ecosystem.example.toml.".to_owned(),
    );
    match &first {
        Some(found) => head.push(format!("Made by `clusterd init` from {}.", found.from)),
        None => head.push(
            "`clusterd init` found nothing here that it knows how to start: this runs the small server that is \
             built into clusterd, until script names yours."
                .to_owned(),
        ),
    }
    if !others.is_empty() {
        head.push(format!(
            "Also found: {}. Add another [[apps]] for each that is a server too.",
            others.join(", ")
        ));
    }
    let from = first.as_ref().map(|found| found.from.clone());
    let found = first.unwrap_or_else(|| example(project));
    document.apps = found.apps;
    document.tail = found.tail;
    for line in problems.iter().flat_map(Diagnostics::one_line) {
        document.tail.push(single_line(&format!("Left out, since it is not understood: {line}")));
    }
    Drafted { text: document.text(), from, pm2, problems }
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub(super) fn strings(words: &[&str]) -> Value {
    Value::List(words.iter().map(|word| Node::made(text(word))).collect())
}

/// A server: its name, what runs, and what one sets next.
pub(super) fn server(project: &Project<'_>, name: &str, runs: Vec<Line>) -> Table {
    let mut table = Table::default();
    table.lines.push(Line::new("name", text(&allowed(name))));
    table.lines.extend(runs);
    table.lines.push(Line::new("instances", Value::Whole(1)).because(
        "workers that share one port; \"max\" is one for each CPU. Given at all, a reload overlaps the old and the \
         new version and loses no request; a bot or a queue consumer that must never run twice goes without",
    ));
    let ready = "replaced when it takes more; the new one is ready first";
    table.lines.push(Line::off("max_memory_restart", text("512M")).because(ready));
    let health = Value::Table(vec![super::Member::made("http", text("/"))]);
    table.lines.push(Line::off("health", health).because("asked again and again whether it is well"));
    if (project.exists)(".env") {
        table.lines.push(Line::off("env_file", text(".env")).because("unless the app reads it by itself"));
    }
    table
}

fn with_profile(mut table: Table, port: i64, variable: &str) -> Table {
    table.tables.push(("env".to_owned(), vec![Line::new("PORT", Value::Whole(port))]));
    let line = Line::new(variable, text("production")).because("with `--env production`");
    table.tables.push(("env_production".to_owned(), vec![line]));
    table
}

fn example(project: &Project<'_>) -> Found {
    let runs =
        vec![Line::new("command", strings(&["clusterd", "demo"])).because("or: script = \"server.js\"")];
    let mut table = server(project, project.folder, runs);
    table.tables.push(("env".to_owned(), vec![Line::new("PORT", Value::Whole(3000))]));
    Found { from: String::new(), apps: vec![table], tail: Vec::new() }
}

/// Lines that are none are left out, as foreman does; a file without any other says nothing.
fn procfile(project: &Project<'_>, wrong: &mut Vec<Diagnostics>) -> Option<Found> {
    let written = (project.text)("Procfile")?;
    let facts = Facts { home: None, has_env_file: (project.exists)(".env") };
    let mut problems = Problems::new(&written, "Procfile");
    let mut import = Import { document: Document::default(), left_out: Vec::new(), facts: &facts };
    import.procfile(&written, &mut problems);
    wrong.extend(problems.finish());
    let Document { apps, tail, .. } = import.document;
    (!apps.is_empty()).then(|| Found { from: "Procfile".to_owned(), apps, tail })
}

fn node(project: &Project<'_>, wrong: &mut Vec<Diagnostics>) -> Option<Found> {
    let written = (project.text)("package.json")?;
    let mut problems = Problems::new(&written, "package.json");
    let package = json::read_plain(&written, &mut problems);
    wrong.extend(problems.finish());
    let package = package?;
    let name = package.get("name").and_then(Node::text);
    let name = name.map(|name| name.rsplit('/').next().unwrap_or(name)).filter(|name| !name.is_empty());
    let start = package.get("scripts").and_then(|scripts| scripts.get("start")).and_then(Node::text);
    let main = package.get("main").and_then(Node::text).map(str::to_owned);
    let there = |file: &str| (project.exists)(file).then(|| file.to_owned());
    let (from, runs) = match start {
        Some(line) => ("package.json (scripts.start)", started(project, line)),
        // What `npm start` does without a script.
        None => {
            let script = there("server.js").or(main.filter(|main| (project.exists)(main)))?;
            ("package.json", vec![Line::new("script", text(&script))])
        }
    };
    let table = with_profile(server(project, name.unwrap_or(project.folder), runs), 3000, "NODE_ENV");
    Some(Found { from: from.to_owned(), apps: vec![table], tail: Vec::new() })
}

/// `node server.js` is run as it is, without npm and a shell in between; all else by the package manager.
fn started(project: &Project<'_>, line: &str) -> Vec<Line> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " ./_-=:,@+".contains(c);
    let words: Vec<&str> = line.split_whitespace().collect();
    if let Some((&"node", rest)) = words.split_first()
        && line.chars().all(is_plain)
    {
        let flags = rest.iter().take_while(|word| word.starts_with('-')).count();
        let (flags, rest) = rest.split_at(flags);
        // A flag whose value is a word of its own cannot be told from the script.
        if let Some((script, args)) = rest.split_first().filter(|(script, _)| is_script(project, script)) {
            let mut lines = vec![Line::new("script", text(script))];
            if !script.contains('.') {
                lines.push(Line::new("interpreter", text("node")));
            }
            if !flags.is_empty() {
                lines.push(Line::new("interpreter_args", strings(flags)));
            }
            if !args.is_empty() {
                lines.push(Line::new("args", strings(args)));
            }
            return lines;
        }
    }
    let managers =
        [("yarn.lock", "yarn start"), ("pnpm-lock.yaml", "pnpm start"), ("bun.lock", "bun run start")];
    let manager =
        managers.iter().find(|(lock, _)| (project.exists)(lock)).map_or("npm start", |(_, line)| line);
    vec![Line::new("script", text(manager)).because(format!("that is: {line}"))]
}

fn is_script(project: &Project<'_>, word: &str) -> bool {
    [".js", ".cjs", ".mjs", ".ts"].iter().any(|end| word.ends_with(end)) || (project.exists)(word)
}

fn ruby(project: &Project<'_>) -> Option<Found> {
    let gems = format!(
        "{}\n{}",
        (project.text)("Gemfile").unwrap_or_default(),
        (project.text)("Gemfile.lock").unwrap_or_default()
    );
    let has_gemfile = (project.exists)("Gemfile");
    let is_rails = (project.exists)("bin/rails");
    let rackup = (project.exists)("config.ru");
    let program = ["app.rb", "server.rb", "main.rb"].into_iter().find(|name| (project.exists)(name));
    let (from, line) = match (rackup || is_rails, program) {
        (true, _) => (if rackup { "config.ru" } else { "Gemfile" }, rack_server(project, &gems)),
        (false, Some(program)) if has_gemfile => ("Gemfile", format!("ruby {program}")),
        (false, _) => return None,
    };
    let words: Vec<&str> = line.split(' ').collect();
    let runs = match has_gemfile {
        true => vec![
            Line::new("script", text("bundle")),
            Line::new("args", strings(&[&["exec"], words.as_slice()].concat())),
        ],
        false => vec![Line::new("script", text(words[0])), Line::new("args", strings(&words[1..]))],
    };
    let mut runs = runs;
    if line.starts_with("puma") {
        runs.push(Line::remark("puma needs no workers of its own here: leave WEB_CONCURRENCY unset, or 0"));
    }
    let variable = if is_rails { "RAILS_ENV" } else { "RACK_ENV" };
    let table = with_profile(server(project, project.folder, runs), 3000, variable);
    Some(Found { from: from.to_owned(), apps: vec![table], tail: Vec::new() })
}

/// What runs a Rack application: the server that is among its gems.
fn rack_server(project: &Project<'_>, gems: &str) -> String {
    let has_settings = (project.exists)("config/puma.rb");
    match (gems.contains("puma"), gems.contains("unicorn")) {
        (true, _) if has_settings => "puma -C config/puma.rb",
        (true, _) => "puma -p 3000",
        (false, true) => "unicorn -p 3000",
        (false, false) => "rackup -o 0.0.0.0 -p 3000",
    }
    .to_owned()
}

fn go(project: &Project<'_>) -> Option<Found> {
    let written = (project.text)("go.mod")?;
    let module =
        written.lines().find_map(|line| line.trim().strip_prefix("module "))?.trim().trim_matches('"');
    let is_version = |part: &&str| {
        part.strip_prefix('v')
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    let name = allowed(module.rsplit('/').find(|part| !is_version(part)).unwrap_or(project.folder));
    let (package, others) = go_program(project, &name)?;
    let line = Line::new("script", text(&format!("./{name}")));
    let mut runs = vec![line.because(format!("built by: go build -o {name} {package}"))];
    if !others.is_empty() {
        let others = others.join(", ");
        runs.push(Line::remark(format!(
            "programs too: {others}; add another [[apps]] for each that is to run"
        )));
    }
    let mut table = server(project, &name, runs);
    table.tables.push(("env".to_owned(), vec![Line::new("PORT", Value::Whole(8080))]));
    Some(Found { from: "go.mod".to_owned(), apps: vec![table], tail: Vec::new() })
}

/// The package that is the server, and other programs; none where the module is a library.
fn go_program(project: &Project<'_>, name: &str) -> Option<(String, Vec<String>)> {
    let is_program = |folder: &str| {
        let files = (project.entries)(folder);
        let mut sources = files.iter().filter(|name| name.ends_with(".go") && !name.ends_with("_test.go"));
        sources.any(|file| {
            let source = (project.text)(&format!("{folder}{file}")).unwrap_or_default();
            source.lines().any(|line| line.trim_end() == "package main" || line.starts_with("package main "))
        })
    };
    let mut programs: Vec<String> = (project.entries)("cmd/");
    programs.retain(|program| is_program(&format!("cmd/{program}/")));
    let usual = [name, "server", "api", "web", "app", "serve"];
    let rank = |program: &String| usual.iter().position(|usual| usual == program).unwrap_or(usual.len());
    programs.sort_by_key(|program| (rank(program), program.clone()));
    let mut packages: Vec<String> = programs.iter().map(|program| format!("./cmd/{program}")).collect();
    if is_program("") {
        // What has the module's name is what it is about.
        let own = usize::from(programs.first().is_some_and(|program| program == name));
        packages.insert(own, ".".to_owned());
    }
    let mut packages = packages.into_iter();
    packages.next().map(|package| (package, packages.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafted(files: &[(&str, &str)]) -> Drafted {
        let find =
            |name: &str| files.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
        let exists = |name: &str| files.iter().any(|(known, _)| *known == name || known.starts_with(name));
        let entries = |folder: &str| {
            let below = files.iter().filter_map(|(known, _)| known.strip_prefix(folder)?.split('/').next());
            let names: std::collections::BTreeSet<&str> = below.collect();
            names.into_iter().map(str::to_owned).collect()
        };
        let drafted = draft(&Project { folder: "shop", text: &find, exists: &exists, entries: &entries });
        let host = crate::config::Host {
            parallelism: 2,
            memory: None,
            folder: "/srv/shop".into(),
            profile: None,
            only: Vec::new(),
        };
        if let Err(wrong) = crate::config::load(&drafted.text, "drafted", &host) {
            panic!("{wrong}\n{}", drafted.text);
        }
        drafted
    }

    #[test]
    fn each_kind_of_project_is_known_by_its_files() {
        for (files, from, expected) in [
            (
                &[(
                    "package.json",
                    "{\"name\": \"@me/web\", \"scripts\": {\"start\": \"node --x=1 src/a.js -p 1\"}}",
                )][..],
                Some("package.json (scripts.start)"),
                &[
                    "name = \"web\"",
                    "script = \"src/a.js\"",
                    "interpreter_args = [\"--x=1\"]",
                    "args = [\"-p\", \"1\"]",
                ][..],
            ),
            (
                &[("package.json", "{\"scripts\": {\"start\": \"next start\"}}"), ("yarn.lock", "")],
                Some("package.json (scripts.start)"),
                &["name = \"shop\"", "# that is: next start\nscript = \"yarn start\""],
            ),
            (&[("package.json", "{}"), ("server.js", "")], Some("package.json"), &["script = \"server.js\""]),
            (&[("package.json", "{}")], None, &["command = [\"clusterd\", \"demo\"]"]),
            (&[("Procfile", "web: ./run\n")], Some("Procfile"), &["name = \"web\"", "script = \"./run\""]),
            (
                &[("config.ru", ""), ("Gemfile", "gem 'puma'")],
                Some("config.ru"),
                &["script = \"bundle\"", "args = [\"exec\", \"puma\", \"-p\", \"3000\"]", "RACK_ENV"],
            ),
            (
                &[("Gemfile", "gem 'sinatra'"), ("app.rb", "")],
                Some("Gemfile"),
                &["args = [\"exec\", \"ruby\", \"app.rb\"]"],
            ),
            (
                &[
                    ("go.mod", "module example.org/me/api/v2\n\ngo 1.22\n"),
                    ("cmd/api/main.go", "package main\n"),
                    ("main.go", "package main\n"),
                ],
                Some("go.mod"),
                &["name = \"api\"", "go build -o api ./cmd/api", "script = \"./api\"", "# programs too: .;"],
            ),
            (
                &[
                    ("go.mod", "module example.org/shop\n"),
                    ("cmd/migrate/main.go", "package main\n"),
                    ("cmd/server/run.go", "// Runs.\npackage main // all\n"),
                    ("cmd/internal/x.go", "package internal\n"),
                    ("shop.go", "package shop\n"),
                ],
                Some("go.mod"),
                &["go build -o shop ./cmd/server", "script = \"./shop\"", "# programs too: ./cmd/migrate;"],
            ),
            (
                &[("go.mod", "module a.b/x\n"), ("x.go", "package main\n")],
                Some("go.mod"),
                &["go build -o x ."],
            ),
            (&[("go.mod", "module a.b/x\n"), ("x.go", "package x\n")], None, &["\"demo\""]),
            (
                &[
                    ("manage.py", "setdefault('DJANGO_SETTINGS_MODULE', 'site.settings')"),
                    ("requirements.txt", "Gunicorn\n"),
                ],
                Some("manage.py"),
                &["script = \"gunicorn\"", "\"site.wsgi:application\""],
            ),
            (&[("manage.py", "")], Some("manage.py"), &["runserver"]),
            (
                &[
                    ("pyproject.toml", "dependencies = ['fastapi']"),
                    ("main.py", ""),
                    (".venv/bin/uvicorn", ""),
                ],
                Some("pyproject.toml"),
                &["script = \".venv/bin/uvicorn\"", "main:app"],
            ),
            (
                &[("requirements.txt", "requests"), ("app.py", "")],
                Some("requirements.txt"),
                &["script = \"app.py\""],
            ),
            // Which object of which module it is, is read from the modules.
            (
                &[
                    ("requirements.txt", "Flask==3\ngunicorn\n"),
                    ("app.py", "x = 1\n"),
                    ("wsgi.py", "application = create_app()\n"),
                ],
                Some("requirements.txt"),
                &["script = \"gunicorn\"", "\"wsgi:application\", \"--bind\""],
            ),
            (
                &[
                    ("requirements.txt", "flask"),
                    ("app.py", "from flask import Flask\n\nweb: Flask = Flask(__name__)\n"),
                ],
                Some("requirements.txt"),
                &["script = \"flask\"", "\"--app\", \"app:web\", \"run\"", "install gunicorn"],
            ),
            (
                &[
                    (
                        "pyproject.toml",
                        "[project]\nname = \"web-shop\"\ndependencies = [\"flask\", \"gunicorn\"]\n",
                    ),
                    ("uv.lock", ""),
                    (
                        "src/web_shop/__init__.py",
                        "import flask\n\ndef create_app():\n    app = flask.Flask(__name__)\n",
                    ),
                ],
                Some("pyproject.toml"),
                &[
                    "script = \"uv\"",
                    "[\"run\", \"gunicorn\", \"web_shop:create_app()\"",
                    "\"--chdir\", \"src\"",
                ],
            ),
            (
                &[
                    (
                        "pyproject.toml",
                        "[tool.poetry]\nname = \"shop\"\n[tool.poetry.dependencies]\nfastapi = \"*\"\n",
                    ),
                    (
                        "shop/main.py",
                        "    inner = FastAPI()\nif x == FastAPI():\n    pass\nservice = FastAPI(title='x')\n",
                    ),
                ],
                Some("pyproject.toml"),
                &["script = \"poetry\"", "[\"run\", \"uvicorn\", \"shop.main:service\", \"--host\""],
            ),
            (
                &[
                    ("pyproject.toml", "fastapi uvicorn"),
                    (
                        "app/main.py",
                        "def create_app() -> FastAPI:\n    return FastAPI()\n\ndef create_app(): pass",
                    ),
                ],
                Some("pyproject.toml"),
                &["script = \"uvicorn\"", "\"app.main:create_app\"", "\"--factory\""],
            ),
            (
                &[
                    ("manage.py", "'DJANGO_SETTINGS_MODULE', \"web.settings.base\""),
                    ("pyproject.toml", "django uvicorn"),
                    ("uv.lock", ""),
                    (".venv/bin/python", ""),
                ],
                Some("manage.py"),
                &["script = \".venv/bin/uvicorn\"", "\"web.asgi:application\""],
            ),
            (
                &[
                    (
                        "pyproject.toml",
                        "[project]\nname = \"job\"\n\n[project.scripts]\n# all\njob-run = \"job:main\"\n",
                    ),
                    ("uv.lock", ""),
                ],
                Some("pyproject.toml"),
                &["script = \"uv\"", "args = [\"run\", \"job-run\"]"],
            ),
            (
                &[("pyproject.toml", "[project]\nname = \"job\"\n"), ("uv.lock", ""), ("main.py", "")],
                Some("pyproject.toml"),
                &["script = \"uv\"", "args = [\"run\", \"python\", \"main.py\"]"],
            ),
            (&[], None, &["name = \"shop\"", "command = [\"clusterd\", \"demo\"]"]),
        ] {
            let drafted = drafted(files);
            assert_eq!(drafted.from.as_deref(), from, "{files:?}");
            for line in expected {
                assert!(drafted.text.contains(line), "{files:?}: {line}\n{}", drafted.text);
            }
        }
    }

    #[test]
    fn what_else_is_there_is_named() {
        let drafted = drafted(&[
            ("Procfile", "web: x y\n"),
            ("go.mod", "module a\n"),
            ("main.go", "package main\n"),
            ("ecosystem.config.js", ""),
            (".env", ""),
        ]);
        assert!(drafted.text.contains("Also found: go.mod."), "{}", drafted.text);
        assert!(drafted.text.contains("env_file = \".env\""), "{}", drafted.text);
        assert_eq!(drafted.pm2.as_deref(), Some("ecosystem.config.js"));
    }
}
