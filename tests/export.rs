//! `clusterd export`: what is printed for the files in `tests/fixtures/export/` lies beside them
//! (`CLUSTERD_BLESS=1` writes what comes out now, for the diff to be read), and is read by readers of others: Ruby's
//! YAML and `systemd-analyze`.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use support::daemon::Builder;
use support::fixtures::worker;
use support::{App, Home};

const CLUSTERD: &str = env!("CARGO_BIN_EXE_clusterd");

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/export")
}

fn clusterd(folder: &Path, words: &[&str]) -> Output {
    clusterd_at(Path::new(CLUSTERD), folder, words)
}

fn clusterd_at(program: &Path, folder: &Path, words: &[&str]) -> Output {
    Command::new(program).args(words).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn exported(folder: &Path, words: &[&str]) -> String {
    let output = clusterd(folder, &[&["export"], words].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What Ruby makes of the documents.
fn documents(yaml: &str) -> Option<Vec<Value>> {
    let ruby = support::runtime("ruby")?;
    let program = "puts JSON.generate(YAML.load_stream(STDIN.read))";
    let mut child = Command::new(ruby)
        .args(["-ryaml", "-rjson", "-e", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "no YAML:\n{yaml}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn kinds(documents: &[Value]) -> Vec<(&str, &str)> {
    documents
        .iter()
        .map(|document| (document["kind"].as_str().unwrap(), document["metadata"]["name"].as_str().unwrap()))
        .collect()
}

/// The name of `hostile.txt`, which would break out of what is written (Schemas know no line within a path).
const HOSTILE: &str = "sh\"op: $x %h 'y' #\n- {}\\.toml";
const PROFILE: &str = "o n: $p %i\n#\"'";

fn hostile() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixtures().join("hostile.txt"), folder.path().join(HOSTILE)).unwrap();
    folder
}

#[test]
fn what_is_printed_is_what_is_checked_in() {
    // A program below a home folder gets a remark.
    let home = Home::new(None);
    let program = home.binary();
    for (form, name) in
        [("kubernetes", "shop.k8s.yaml"), ("compose", "shop.compose.yaml"), ("systemd", "shop.units")]
    {
        // A unit's remark has the path of an `env_file`, and lines as long as this folder's name lets them be.
        let only: &[&str] = if form == "systemd" { &["--only", "api,web,clock"] } else { &[] };
        let words = [&["export", form, "shop.toml", "--env", "production"], only].concat();
        let output = clusterd_at(&program, &fixtures(), &words);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let made = text(&output.stdout);
        let made = made
            .replace(program.to_str().unwrap(), "/usr/bin/clusterd")
            .replace(fixtures().to_str().unwrap(), "/srv/shop");
        assert!(!made.contains("sesame"), "{form} shows a secret");
        let path = fixtures().join(name);
        if std::env::var_os("CLUSTERD_BLESS").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert!(made == expected, "{} differs; it is now:\n{made}", path.display());
    }
}

#[test]
fn kubernetes_gets_for_each_app_what_fits_it() {
    let yaml =
        exported(&fixtures(), &["kubernetes", "shop.toml", "--env", "production", "--image", "r/shop:7"]);
    let Some(documents) = documents(&yaml) else { return };
    // api and web wait for each other and share one; the others serve nobody; clock may be there only once.
    assert_eq!(
        kinds(&documents),
        [
            ("Deployment", "api"),
            ("Service", "api"),
            ("HorizontalPodAutoscaler", "api"),
            ("PodDisruptionBudget", "api"),
            ("Deployment", "mail-worker"),
            ("Deployment", "clock"),
        ]
    );
    let pod = &documents[0]["spec"]["template"]["spec"];
    // preStop 5, then api 20 and web 31.6, rounded up, and 2.
    assert_eq!(pod["terminationGracePeriodSeconds"], json!(59));
    let container = &pod["containers"][0];
    assert_eq!(container["image"], json!("r/shop:7"));
    assert_eq!(
        container["args"],
        json!(["/app/shop.toml", "--env=production", "--only=api,web", "--no-log-files"])
    );
    assert_eq!(container["readinessProbe"]["httpGet"], json!({ "path": "/readyz", "port": 9615 }));
    assert_eq!(container["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(documents[1]["spec"]["ports"][1], json!({ "name": "api", "port": 3000, "targetPort": "api" }));
    // As many workers as CPUs: the limit is theirs to follow, whatever else runs.
    assert_eq!(container["resources"]["limits"], json!({ "cpu": "2000m" }));
    let mail = &documents[4]["spec"]["template"]["spec"]["containers"][0];
    // Two workers of 1.5G and 64M; a third one at the limit.
    assert_eq!(mail["resources"]["requests"]["memory"], json!("3136Mi"));
    assert_eq!(mail["resources"]["limits"]["memory"], json!("4672Mi"));
    assert_eq!(documents[5]["spec"]["strategy"], json!({ "type": "Recreate" }));
}

#[test]
fn text_from_the_file_stays_where_it_belongs() {
    let folder = hostile();
    let words = |form| [form, HOSTILE, "--env", PROFILE, "--image", "a: [$b] #\n---"];
    let file = format!("/app/{HOSTILE}");
    let yaml = exported(folder.path(), &words("kubernetes"));
    let Some(pods) = documents(&yaml) else { return };
    assert_eq!(
        kinds(&pods),
        [
            ("Deployment", "yes-null"),
            ("Service", "yes-null"),
            ("HorizontalPodAutoscaler", "yes-null"),
            ("PodDisruptionBudget", "yes-null"),
            ("Deployment", "app-1e3"),
            ("Service", "app-1e3"),
            ("HorizontalPodAutoscaler", "app-1e3"),
            ("PodDisruptionBudget", "app-1e3"),
        ]
    );
    for form in ["kubernetes", "compose", "systemd"] {
        let shown = exported(folder.path(), &[form, HOSTILE, "--env", PROFILE]);
        assert!(!shown.contains("sesame") && !shown.contains("ses'ame"), "{form} shows a secret:\n{shown}");
    }
    let container = &pods[0]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        container["args"],
        json!([file, format!("--env={PROFILE}"), "--only=NULL,No", "--no-log-files"])
    );
    assert_eq!(container["image"], json!("a: [$b] #\n---"));
    let names: Vec<&Value> = container["env"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["CLUSTERD_HOME", "API_KEY"]);
    // `user` takes root, for whom the folder of an emptyDir is not safe.
    assert_eq!(container["env"][0]["value"], json!("/dev/shm/clusterd"));
    let other = &pods[4]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(other["args"], json!([file, format!("--env={PROFILE}"), "--only=1e3", "--no-log-files"]));

    let yaml = exported(folder.path(), &words("compose"));
    let composed = documents(&yaml).unwrap();
    let services = composed[0]["services"].as_object().unwrap();
    assert_eq!(
        (composed.len(), services.keys().map(String::as_str).collect::<Vec<_>>()),
        (1, vec!["app-1e3", "yes-null"])
    );
    // A dollar begins a variable there.
    let dollars = |text: &str| text.replace('$', "$$");
    let command =
        json!([dollars(&file), dollars(&format!("--env={PROFILE}")), "--only=NULL,No", "--no-log-files"]);
    assert_eq!(services["yes-null"]["command"], command);
    assert_eq!(services["yes-null"]["environment"], json!(["CLUSTERD_HOME=/run/clusterd", "API_KEY"]));
    assert_eq!(services["app-1e3"]["image"], json!("a: [$$b] #\n---"));
}

/// The words behind the file's name choose what they should, by the file's own names.
#[test]
fn what_a_container_is_told_is_what_clusterd_takes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    let app = |name: &str, more: &str| format!("[[apps]]\nname = \"{name}\"\nscript = \"a.js\"\n{more}\n");
    let both = app("api", "append_env_to_name = true\nlisten = 3000\n[apps.env_eu]\nA = \"b\"")
        + &app("db", "append_env_to_name = true\nexec_mode = \"fork\"")
        + &app("api", "namespace = \"other\"");
    fs::write(&file, both).unwrap();
    let yaml = exported(folder.path(), &["kubernetes", "a.toml", "--env", "eu"]);
    let Some(pods) = documents(&yaml) else { return };
    let deployments = pods.iter().filter(|pod| pod["kind"] == "Deployment");
    let args: Vec<&Value> =
        deployments.map(|pod| &pod["spec"]["template"]["spec"]["containers"][0]["args"]).collect();
    // `--only` cannot tell the two of one name apart: they stay together.
    let expected =
        |name: &str| json!(["/app/a.toml", "--env=eu", format!("--only={name}"), "--no-log-files"]);
    assert_eq!(args, [&expected("api"), &expected("db")]);
    let valid = clusterd(folder.path(), &["validate", "a.toml", "--env", "eu", "--only", "api", "--json"]);
    let valid: Value = serde_json::from_slice(&valid.stdout).unwrap();
    assert_eq!(valid["apps"], json!(["api-eu", "api"]));
}

/// Writes each part to the file that stands above it; gives their names.
fn unpacked(units: &str, folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for part in units.split("\n# ==> /etc/systemd/system/").skip(1) {
        let (name, unit) = part.split_once('\n').unwrap();
        fs::write(folder.join(name), unit).unwrap();
        names.push(name.to_owned());
    }
    names
}

#[test]
fn systemd_has_nothing_to_say_of_the_units() {
    let hostile = hostile();
    let there = |folder: &Path, words: &[&str]| exported(folder, &[&["systemd"], words].concat());
    for (units, expected) in [
        (
            there(&fixtures(), &["shop.toml", "--env", "production", "--only", "api,clock"]),
            ["clusterd-shop.service", "clusterd-shop.socket", "clusterd-shop-2.socket"].as_slice(),
        ),
        (
            there(hostile.path(), &[HOSTILE, "--env", PROFILE]),
            &[
                "clusterd-sh-op-x-h-y.service",
                "clusterd-sh-op-x-h-y.socket",
                "clusterd-sh-op-x-h-y-2.socket",
                "clusterd-sh-op-x-h-y-3.socket",
            ],
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let names = unpacked(&units, folder.path());
        assert_eq!(names, expected);
        let set = |key: &str| units.lines().filter(|line| line.starts_with(key)).count();
        assert_eq!(
            (set("ExecStart="), set("User="), set("ListenStream=") > 1, set("kind:")),
            (1, 1, true, 0)
        );
        let Some(analyze) = support::runtime("systemd-analyze") else { return };
        let output = Command::new(analyze)
            .args(["verify", "--man=no", "--system"])
            .args(names.iter().map(|name| folder.path().join(name)))
            .output()
            .unwrap();
        let said = text(&output.stderr);
        let about: Vec<&str> = said.lines().filter(|line| line.contains("clusterd-s")).collect();
        assert!(output.status.success() && about.is_empty(), "{said}\n{units}");
    }
}

/// systemd takes the words apart again.
#[test]
fn a_units_command_line_is_quoted() {
    let folder = hostile();
    let units = exported(folder.path(), &["systemd", HOSTILE, "--env", PROFILE]);
    let line = units.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
    assert!(
        line.ends_with(r#"sh\"op: $$x %%h 'y' #\x0a- {}\\.toml" "--env=o n: $$p %%i\x0a#\"'""#),
        "{line}"
    );
}

#[test]
fn what_validate_refuses_is_refused_with_the_same_words() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.toml"), "[[apps]]\nscripts = \"a.js\"\n").unwrap();
    let validated = clusterd(folder.path(), &["validate", "a.toml"]);
    for form in ["kubernetes", "compose", "systemd"] {
        let refused = clusterd(folder.path(), &["export", form, "a.toml"]);
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0));
        assert_eq!(text(&refused.stderr), text(&validated.stderr));
    }
    for (words, why) in [
        (&["systemd", "shop.toml", "--image", "a"][..], "--image is for kubernetes and compose"),
        (&["systemd", "-"], "standard input has no name"),
        (&["compose", "shop.toml", "--image", ""], "--image is empty"),
        (&["kubernetes", "shop.toml", "--env", "nowhere"], "nowhere"),
        (&["compose", "shop.toml", "--only", "nobody"], "nobody"),
        (&["nomad", "shop.toml"], "nomad"),
        (&["compose"], "FILE"),
    ] {
        let refused = clusterd(&fixtures(), &[&["export"], words].concat());
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{words:?}");
        let said = text(&refused.stderr);
        assert!(said.contains(why), "{words:?}: {said}");
    }
}

#[test]
fn json_has_the_same_text() {
    let plain = exported(&fixtures(), &["compose", "shop.toml"]);
    let json: Value =
        serde_json::from_str(&exported(&fixtures(), &["compose", "shop.toml", "--json"])).unwrap();
    assert_eq!(json["text"], json!(plain));
}

/// What is printed for a file, as Kubernetes and Compose get it.
fn both(text_of_file: &str) -> Option<(Vec<Value>, Value)> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.toml"), text_of_file).unwrap();
    let pods = documents(&exported(folder.path(), &["kubernetes", "a.toml"]))?;
    let composed = documents(&exported(folder.path(), &["compose", "a.toml"]))?;
    Some((pods, composed.into_iter().next().unwrap()))
}

fn app(name: &str, more: &str) -> String {
    format!("[[apps]]\nname = \"{name}\"\nscript = \"a.js\"\n{more}\n")
}

/// The pod's part of the one Deployment, and its container.
fn pod(pods: &[Value]) -> (&Value, &Value) {
    let pod = &pods[0]["spec"]["template"]["spec"];
    (pod, &pod["containers"][0])
}

/// With just the folders that the manifest mounts, as the user that it names: another one than root.
#[test]
fn what_is_exported_comes_up() {
    let user = support::root().then_some(support::ORDINARY);
    let home = Arc::new(Home::new(user));
    let folder = home.apps().join("sockets/of/api");
    let port = support::free_port();
    let listen = format!("[\"0.0.0.0:{port}\", \"unix:{}\"]", folder.join("api.sock").display());
    let apps = [App::new("api", &worker(&["serve", "fds"])).set("listen", listen)];
    let file = support::file(&apps);
    home.write(&file);
    let Some(pods) = documents(&exported(&home.apps(), &["kubernetes", "ecosystem.toml"])) else { return };
    let (pod, container) = pod(&pods);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], json!(true));
    let mounts = container["volumeMounts"].as_array().unwrap().iter().map(|mount| &mount["mountPath"]);
    for at in mounts.filter_map(Value::as_str).filter(|at| Path::new(at).starts_with(home.apps())) {
        fs::create_dir_all(at).unwrap();
        std::os::unix::fs::chown(at, user, user).unwrap();
    }
    let words = container["args"].as_array().unwrap().iter().skip(1).filter_map(Value::as_str);
    let started = words.fold(Builder::new(&file).user(user), |builder, word| builder.argument(word));
    let daemon = started.start_in(Arc::clone(&home));
    daemon.wait_online("api", 1);
    let asked = container["readinessProbe"]["exec"]["command"].as_array().unwrap().iter().skip(1);
    let asked: Vec<&str> = asked.filter_map(Value::as_str).collect();
    support::wait_until(support::daemon::BOOT, "the probe's answer", || daemon.run(&asked).code == 0);
    assert!(folder.join("api.sock").exists());
}

#[test]
fn folders_of_unix_sockets_are_there() {
    let listen = r#"listen = ["unix:/run/shop/api.sock", "unix:/run/shop/b.sock", "unix:/srv/x/c.sock", "unix:@d",
        "unix:/tmp/e.sock", "unix:/app/f.sock", "unix:/run/clusterd/g.sock"]"#;
    let Some((pods, composed)) = both(&app("api", listen)) else { return };
    let (pod, container) = pod(&pods);
    let mounts: Vec<&Value> =
        container["volumeMounts"].as_array().unwrap().iter().map(|mount| &mount["mountPath"]).collect();
    assert_eq!(mounts, ["/run/clusterd", "/tmp", "/run/shop", "/srv/x"]);
    assert_eq!(pod["volumes"].as_array().unwrap().len(), 4);
    assert_eq!(
        composed["services"]["api"]["tmpfs"],
        json!([
            "/run/clusterd:mode=0700,uid=65532,gid=65532",
            "/tmp",
            "/run/shop:mode=0755,uid=65532,gid=65532",
            "/srv/x:mode=0755,uid=65532,gid=65532"
        ])
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.toml"), app("api", listen)).unwrap();
    let flat = |form: &str| exported(folder.path(), &[form, "a.toml"]).replace("\n", " ").replace(" # ", " ");
    assert!(flat("kubernetes").contains("unix:/app/f.sock is not opened"));
    let units = flat("systemd");
    assert!(
        units.contains(" RuntimeDirectory=clusterd-a clusterd shop RuntimeDirectoryMode=0711 "),
        "{units}"
    );
    assert!(
        units.contains("Unix sockets in /srv/x: clusterd's user has to be able to write there"),
        "{units}"
    );
}

#[test]
fn an_owner_of_a_socket_takes_root() {
    let listen = r#"listen = { address = "unix:/run/shop/api.sock", group = 7 }"#;
    let Some((pods, composed)) = both(&app("api", listen)) else { return };
    let (pod, container) = pod(&pods);
    assert_eq!(pod["securityContext"]["runAsUser"], json!(0));
    let added = json!(["SETUID", "SETGID", "KILL", "CHOWN", "FOWNER"]);
    assert_eq!(container["securityContext"]["capabilities"]["add"], added);
    assert_eq!(composed["services"]["api"]["cap_add"], added);
}

#[test]
fn low_ports_are_free_wherever_they_are() {
    for text in [
        app("api", r#"listen = "127.0.0.1:80""#),
        format!("[daemon]\nhttp = \"127.0.0.1:90\"\n{}", app("api", "listen = 3000")),
        format!("[daemon]\nhttp = \":90\"\n{}", app("api", "listen = 3000")),
    ] {
        let Some((pods, composed)) = both(&text) else { return };
        let name = "net.ipv4.ip_unprivileged_port_start";
        let (pod, _) = pod(&pods);
        assert_eq!(pod["securityContext"]["sysctls"], json!([{ "name": name, "value": "0" }]), "{text}");
        assert_eq!(composed["services"]["api"]["sysctls"], json!({ name: "0" }), "{text}");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.toml"), text).unwrap();
        let units = exported(folder.path(), &["systemd", "a.toml"]);
        assert!(units.contains("\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"), "{units}");
    }
}

/// IsValidPortName of Kubernetes: 15 letters, digits and dashes, a letter among them, no dash at an end or beside
/// another.
#[test]
fn names_of_ports_are_ones() {
    let listens: Vec<String> = ["a--b", "a__b", "12345678--9-xyzzy", "12345678--9-xyzzz", "--", "a-b-3005"]
        .iter()
        .zip(3001..)
        .map(|(name, port)| format!("{{ name = \"{name}\", address = \":{port}\" }}"))
        .collect();
    let Some((pods, _)) = both(&app("api", &format!("listen = [{}]", listens.join(", ")))) else { return };
    let (_, container) = pod(&pods);
    let names: Vec<&str> =
        container["ports"].as_array().unwrap().iter().map(|port| port["name"].as_str().unwrap()).collect();
    let is_valid = |name: &&str| {
        (1..=15).contains(&name.len())
            && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
            && name.contains(|c: char| c.is_ascii_lowercase())
            && !(name.contains("--") || name.starts_with('-') || name.ends_with('-'))
    };
    let each: std::collections::BTreeSet<&&str> = names.iter().collect();
    assert!(names.len() == 6 && each.len() == 6 && names.iter().all(is_valid), "{names:?}");
}

#[test]
fn an_address_of_one_machine_is_no_port_of_a_container() {
    let text = "[daemon]\nhttp = \"192.0.2.1:9615\"\n".to_owned()
        + &app("api", r#"listen = ["192.0.2.1:3000", "[2001:db8::1]:3001", "[::]:3002"]"#);
    let Some((pods, composed)) = both(&text) else { return };
    let (_, container) = pod(&pods);
    assert_eq!(container["ports"], json!([{ "name": "api", "containerPort": 3002 }]));
    assert_eq!(container["readinessProbe"]["exec"]["command"], json!(["clusterd", "ping", "--ready"]));
    assert_eq!(composed["services"]["api"]["ports"], json!(["3002:3002"]));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.toml"), text).unwrap();
    for form in ["kubernetes", "compose"] {
        let flat = exported(folder.path(), &[form, "a.toml"]);
        for address in ["listen 192.0.2.1:3000", "listen [2001:db8::1]:3001", "[daemon] http 192.0.2.1:9615"]
        {
            assert!(
                flat.contains(&format!("{address} is an address that a container does not have")),
                "{flat}"
            );
        }
    }
}

#[test]
fn no_more_cpus_are_asked_for_than_the_host_has() {
    let Some((_, composed)) = both(&app("api", "instances = 64\nmax_memory_restart = \"100M\"")) else {
        return;
    };
    assert_eq!(composed["services"]["api"]["deploy"]["resources"]["limits"], json!({ "memory": "6564M" }));
    let Some((_, composed)) = both(&app("api", "instances = 64")) else { return };
    assert_eq!(composed["services"]["api"].get("deploy"), None);
    let Some((_, composed)) = both(&app("api", "instances = \"max\"")) else { return };
    assert_eq!(composed["services"]["api"]["deploy"]["resources"]["limits"], json!({ "cpus": "2.0" }));
}

#[test]
fn a_pid_file_that_cannot_be_written_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for (path, forms) in [
        ("/var/run/api.pid", ["kubernetes", "compose", "systemd"].as_slice()),
        ("/tmp/api.pid", &["systemd"]),
    ] {
        fs::write(folder.path().join("a.toml"), app("api", &format!("pid_file = \"{path}\""))).unwrap();
        for form in ["kubernetes", "compose", "systemd"] {
            let flat = exported(folder.path(), &[form, "a.toml"]);
            assert_eq!(
                flat.contains(&format!("api: pid_file {path}")),
                forms.contains(&form),
                "{form}: {flat}"
            );
        }
    }
}

#[test]
fn a_file_is_called_alike_whichever_way_leads_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let shop = folder.path().join("shop");
    fs::create_dir_all(shop.join("web")).unwrap();
    fs::write(shop.join("ecosystem.toml"), app("api", "listen = 3000")).unwrap();
    let plain = exported(&shop, &["systemd", "ecosystem.toml"]);
    assert!(plain.contains("# ==> /etc/systemd/system/clusterd-shop.service"), "{plain}");
    for (from, called) in
        [("shop", "./ecosystem.toml"), ("shop/web", "../ecosystem.toml"), ("", "./shop/ecosystem.toml")]
    {
        let units = exported(&folder.path().join(from), &["systemd", called]);
        let said = |text: &str| text.split_once("\n# ==>").unwrap().1.to_owned();
        assert_eq!(said(&units), said(&plain), "{called}");
        let yaml = exported(&folder.path().join(from), &["kubernetes", called]);
        assert!(yaml.contains("image: \"shop:latest\""), "{called}: {yaml}");
    }
}
