//! A project in Python → what `init` writes for it. What serves it is a program of its environment (Poetry, uv, Pipenv,
//! a folder of its own), and is told which object of which module the application is.

use std::collections::BTreeMap;

use super::document::Line;
use super::project::{Found, Project, server, strings, text};

/// What says which packages are needed.
const SOURCES: [&str; 4] = ["pyproject.toml", "requirements.txt", "Pipfile", "setup.py"];

/// Modules that hold an application, by habit.
const MODULES: [&str; 8] = ["main", "app", "server", "wsgi", "asgi", "application", "api", "__init__"];

/// What makes an application, and whether that is one of ASGI.
const MAKERS: [(&str, Option<bool>); 13] = [
    ("FastAPI(", Some(true)),
    ("Starlette(", Some(true)),
    ("Litestar(", Some(true)),
    ("Quart(", Some(true)),
    ("get_asgi_application(", Some(true)),
    ("falcon.asgi.App(", Some(true)),
    ("Flask(", Some(false)),
    ("Bottle(", Some(false)),
    ("falcon.App(", Some(false)),
    ("get_wsgi_application(", Some(false)),
    ("make_wsgi_app(", Some(false)),
    ("create_app(", None),
    ("make_app(", None),
];

/// Functions that are called for an application.
const FACTORIES: [&str; 2] = ["create_app", "make_app"];

/// The project, as far as its files tell of it.
struct Python<'p> {
    project: &'p Project<'p>,
    written: BTreeMap<&'static str, String>,
    /// What stands before a program so that it is the environment's: a folder, or words.
    bin: &'static str,
    runner: Option<[&'static str; 2]>,
}

/// Where the application is.
struct Application {
    /// `shop.web:app`, or a call.
    target: String,
    /// It is a function that is called for the application.
    is_factory: bool,
    is_asgi: Option<bool>,
    /// Modules are found below this folder.
    below: &'static str,
}

/// What a project in Python is started with; none where nothing says that it is one.
pub(super) fn found(project: &Project<'_>) -> Option<Found> {
    let read = |name: &&'static str| Some((*name, (project.text)(name)?));
    let written: BTreeMap<&str, String> = SOURCES.iter().filter_map(read).collect();
    let bin = [".venv/bin/", "venv/bin/"].into_iter().find(|bin| (project.exists)(bin)).unwrap_or("");
    let python = Python { project, bin, runner: runner(project, &written, bin), written };
    let manage = (project.text)("manage.py").filter(|_| python.written.is_empty() || !python.needs("flask"));
    let (from, runs) = match manage {
        Some(manage) => ("manage.py", python.django(&manage)),
        None => (*python.written.keys().next()?, python.runs()?),
    };
    let table = server(project, project.folder, runs);
    Some(Found { from: from.to_owned(), apps: vec![table], tail: Vec::new() })
}

/// How a program of the environment is run, where that lies elsewhere.
fn runner(
    project: &Project<'_>,
    written: &BTreeMap<&'static str, String>,
    bin: &str,
) -> Option<[&'static str; 2]> {
    let says = |part: &str| written.get("pyproject.toml").is_some_and(|text| text.contains(part));
    let rows = [
        ("uv.lock", "[tool.uv", "uv"),
        ("poetry.lock", "[tool.poetry", "poetry"),
        ("pdm.lock", "[tool.pdm", "pdm"),
        ("Pipfile", "[pipenv]", "pipenv"),
    ];
    let locked = rows.iter().find(|(lock, ..)| (project.exists)(lock));
    let found = locked.or_else(|| rows.iter().find(|(_, table, _)| says(table)));
    found.filter(|_| bin.is_empty()).map(|(.., tool)| [*tool, "run"])
}

impl Python<'_> {
    fn needs(&self, package: &str) -> bool {
        self.written.values().any(|text| text.to_ascii_lowercase().contains(package))
    }

    fn exists(&self, name: &str) -> bool {
        (self.project.exists)(name)
    }

    /// A program of the environment with its arguments.
    fn program(&self, name: &str, args: &[&str], remark: Option<&str>) -> Vec<Line> {
        let (script, args) = match self.runner {
            Some([tool, run]) => (tool.to_owned(), [&[run, name], args].concat()),
            None => (format!("{}{name}", self.bin), args.to_vec()),
        };
        let args = Line::new("args", strings(&args));
        let args = match remark {
            Some(remark) => args.because(remark),
            None => args,
        };
        vec![Line::new("script", text(&script)), args]
    }

    fn runs(&self) -> Option<Vec<Line>> {
        let is_served = ["uvicorn", "fastapi", "gunicorn", "flask", "starlette", "litestar", "quart"];
        if is_served.iter().any(|package| self.needs(package)) {
            let found = self.application();
            let is_asgi = found.as_ref().and_then(|found| found.is_asgi);
            let is_asgi = is_asgi.unwrap_or_else(|| self.needs("uvicorn") || self.needs("fastapi"));
            let found = found.unwrap_or_else(|| self.usual(is_asgi));
            return Some(match is_asgi {
                true => self.uvicorn(&found),
                false if self.needs("gunicorn") => self.gunicorn(&found),
                false => self.flask(&found),
            });
        }
        let module = ["main", "app", "server"].into_iter().find(|name| self.exists(&format!("{name}.py")));
        match module {
            Some(module) => Some(self.script(&format!("{module}.py"), &[], None)),
            None => self.entry_point().map(|name| self.program(&name, &[], None)),
        }
    }

    /// A script of the project.
    fn script(&self, script: &str, args: &[&str], remark: Option<&str>) -> Vec<Line> {
        if self.runner.is_some() {
            return self.program("python", &[&[script], args].concat(), remark);
        }
        let script = Line::new("script", text(script));
        let mut lines = vec![match remark {
            Some(remark) => script.because(remark),
            None => script,
        }];
        if !self.bin.is_empty() {
            lines.push(Line::new("interpreter", text(&format!("{}python", self.bin))));
        }
        if !args.is_empty() {
            lines.push(Line::new("args", strings(args)));
        }
        lines
    }

    /// Where no module shows an application: where most have it.
    fn usual(&self, is_asgi: bool) -> Application {
        let module = MODULES.into_iter().find(|name| self.exists(&format!("{name}.py")));
        let target = format!("{}:app", module.unwrap_or(if is_asgi { "main" } else { "app" }));
        Application { target, is_factory: false, is_asgi: Some(is_asgi), below: "" }
    }

    /// The module that makes an application, or else the one that has a function for it.
    fn application(&self) -> Option<Application> {
        let own = self.package_name();
        let mut folders = vec![("", String::new()), ("", "app/".to_owned())];
        folders.extend(own.iter().map(|own| ("", format!("{own}/"))));
        folders.push(("src", String::new()));
        folders.extend(own.iter().map(|own| ("src", format!("{own}/"))));
        let mut factory = None;
        for (below, folder) in folders {
            for module in MODULES {
                let root = if below.is_empty() { String::new() } else { format!("{below}/") };
                let Some(source) = (self.project.text)(&format!("{root}{folder}{module}.py")) else {
                    continue;
                };
                let path = format!("{folder}{module}").replace('/', ".");
                let path = path.strip_suffix(".__init__").unwrap_or(&path);
                if let Some((name, is_asgi)) = made(&source) {
                    let target = format!("{path}:{name}");
                    return Some(Application { target, is_factory: false, is_asgi, below });
                }
                let name = FACTORIES
                    .iter()
                    .find(|name| source.lines().any(|line| line.starts_with(&format!("def {name}("))));
                factory = factory.or_else(|| {
                    let target = format!("{path}:{}", name?);
                    let makers = MAKERS.iter().find(|(maker, _)| source.contains(maker));
                    let is_asgi = makers.and_then(|(_, is_asgi)| *is_asgi);
                    Some(Application { target, is_factory: true, is_asgi, below })
                });
            }
        }
        factory
    }

    /// What the project calls itself, as a module.
    fn package_name(&self) -> Option<String> {
        let name = self.written.get("pyproject.toml")?.lines().find_map(|line| value_of(line, "name"))?;
        Some(name.replace('-', "_"))
    }

    /// The first program that the project installs.
    fn entry_point(&self) -> Option<String> {
        let mut lines = self.written.get("pyproject.toml")?.lines().map(str::trim);
        lines.find(|line| matches!(*line, "[project.scripts]" | "[tool.poetry.scripts]"))?;
        let line = lines.find(|line| !line.is_empty() && !line.starts_with('#'))?;
        let (name, _) = line.split_once('=').filter(|_| !line.starts_with('['))?;
        Some(name.trim().trim_matches(['"', '\'']).to_owned())
    }

    fn uvicorn(&self, found: &Application) -> Vec<Line> {
        let mut args = vec![found.target.as_str(), "--host", "0.0.0.0", "--port", "8000"];
        if found.is_factory {
            args.push("--factory");
        }
        if !found.below.is_empty() {
            args.extend(["--app-dir", found.below]);
        }
        self.program("uvicorn", &args, None)
    }

    fn gunicorn(&self, found: &Application) -> Vec<Line> {
        let call = if found.is_factory { "()" } else { "" };
        let target = format!("{}{call}", found.target);
        let mut args = vec![target.as_str(), "--bind", "0.0.0.0:8000", "--workers", "1"];
        if !found.below.is_empty() {
            args.extend(["--chdir", found.below]);
        }
        let remark = "one worker of its own: clusterd has as many of them as instances says";
        self.program("gunicorn", &args, Some(remark))
    }

    fn flask(&self, found: &Application) -> Vec<Line> {
        let below = if found.below.is_empty() { String::new() } else { format!("{}/", found.below) };
        let target = format!("{below}{}", found.target);
        let remark =
            "Flask's server for development; install gunicorn for all else, and run clusterd init again";
        let args = ["--app", &target, "run", "--host", "0.0.0.0", "--port", "8000"];
        self.program("flask", &args, Some(remark))
    }

    fn django(&self, manage: &str) -> Vec<Line> {
        // os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')
        let after = manage.split("DJANGO_SETTINGS_MODULE").nth(1).unwrap_or_default();
        let settings = after.split(['\'', '"']).find(|part| part.contains('.'));
        let package = settings.and_then(|settings| settings.split('.').next()).unwrap_or(self.project.folder);
        let served = |kind: &str, is_asgi| Application {
            target: format!("{package}.{kind}:application"),
            is_factory: false,
            is_asgi: Some(is_asgi),
            below: "",
        };
        if self.needs("gunicorn") {
            return self.gunicorn(&served("wsgi", false));
        }
        if self.needs("uvicorn") {
            return self.uvicorn(&served("asgi", true));
        }
        let remark =
            "Django's server for development; install gunicorn for all else, and run clusterd init again";
        self.script("manage.py", &["runserver", "0.0.0.0:8000", "--noreload"], Some(remark))
    }
}

/// `name = "value"`.
fn value_of<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    let value = line.trim().strip_prefix(key)?.trim_start().strip_prefix('=')?.trim();
    let value = value.trim_matches(['"', '\'']);
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (!value.is_empty() && value.chars().all(is_name)).then_some(value)
}

/// The name of the application that a module makes, `app = Flask(__name__)`, and whether it is one of ASGI.
fn made(source: &str) -> Option<(&str, Option<bool>)> {
    source.lines().find_map(|line| {
        let (left, right) = line.split_once('=')?;
        let (_, is_asgi) = MAKERS.iter().find(|(maker, _)| right.contains(maker))?;
        let name = left.split(':').next()?.trim_end();
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        is_name.then_some((name, *is_asgi))
    })
}
