//! Links, and the tables that name what there is.

use std::collections::BTreeSet;

use p2pfaas::config::Settings;
use p2pfaas::policy::registry::ALGORITHMS;
use p2pfaas::rl::parameters::Parameters;
use serde_json::{Map, Value, json};

use super::common::process::run;
use super::common::{TestNode, send};
use super::pages::{self, anchors, links, read, root, rows};

/// What stands between code marks.
fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

#[test]
fn every_link_leads_to_a_file_that_is_there_and_to_a_heading_in_it() {
    let folders = ["docs", "deploy", "functions", "benches"];
    let mut all: Vec<String> =
        folders.iter().flat_map(|folder| pages::below(folder, "md")).collect();
    all.push("README.md".to_owned());
    let mut followed = 0;
    for page in all {
        let text = read(&page);
        for link in links(&text).into_iter().filter(|link| !link.starts_with("http")) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = root().join(&page).parent().expect("a folder").to_owned();
            let target = if path.is_empty() { root().join(&page) } else { folder.join(path) };
            assert!(target.exists(), "{page}: {link} leads nowhere");
            if !anchor.is_empty() {
                let there = std::fs::read_to_string(&target).expect("a page");
                assert!(
                    anchors(&there).iter().any(|a| a == anchor),
                    "{page}: {link} has no heading"
                );
            }
            followed += 1;
        }
    }
    assert!(followed > 100, "{followed}");
}

#[test]
fn the_summary_and_the_first_page_name_every_page_once() {
    let all: BTreeSet<String> = pages::below("docs", "md")
        .iter()
        .filter_map(|page| Some(page.strip_prefix("docs/")?.to_owned()))
        .filter(|page| page != "SUMMARY.md")
        .collect();
    let named = links(&read("docs/SUMMARY.md"));
    assert_eq!(named.len(), all.len(), "{named:?}");
    assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), all);
    let first: BTreeSet<String> = links(&read("docs/README.md")).into_iter().collect();
    for page in all.iter().filter(|page| *page != "README.md") {
        assert!(first.contains(page), "docs/README.md does not name {page}");
    }
}

#[test]
fn every_algorithm_has_its_row() {
    let table = rows(&read("docs/schedulers.md"), "name");
    let named: BTreeSet<&str> = table.iter().filter_map(|row| code(row.first()?)).collect();
    let known: BTreeSet<&str> = ALGORITHMS.iter().map(|algorithm| algorithm.name).collect();
    assert_eq!(named, known);
}

#[test]
fn every_setting_has_its_row_with_its_names_and_its_default() {
    let table = rows(&read("docs/settings.md"), "name and TOML key");
    let named: Vec<&str> = table.iter().filter_map(|row| code(row.first()?)).collect();
    let known: Vec<&str> = Settings::KEYS.iter().map(|key| key.name).collect();
    assert_eq!(named, known);

    let help = String::from_utf8(run(&["node", "--help"], &[]).stdout).expect("text");
    let defaults = toml::Table::try_from(Settings::default()).expect("TOML");
    let mut compared = 0;
    for row in &table {
        let [name, environment, flag, _unit, _range, default, meaning] = row.as_slice() else {
            panic!("{row:?}")
        };
        let name = code(name).expect("a name");
        assert_eq!(code(environment), Some(&*format!("P2PFAAS_{}", name.to_uppercase())));
        if let Some(flag) = code(flag) {
            assert!(help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")));
        }
        if let (Some(told), Some(value)) = (code(default), defaults.get(name)) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert_eq!(told, value, "{name}");
            compared += 1;
        }
        assert!(meaning.len() > 10, "{name}");
    }
    assert!(compared > 35, "{compared}");
}

/// Another value than the default, which is good.
fn other(key: &str, default: &Value) -> Value {
    match key {
        "value_function" => json!("tiles"),
        "td_form" => json!("q_learning"),
        "compatibility" => json!("v1"),
        "reward" => json!({"source": "node", "deadlines_s": [1]}),
        _ => match default {
            Value::Bool(value) => json!(!value),
            Value::Number(number) if number.is_u64() => json!(number.as_u64().unwrap_or(0) + 1),
            _ => json!(0.5),
        },
    }
}

#[test]
fn every_parameter_of_the_learner_has_its_row_with_its_default_and_when_it_acts() {
    let table = rows(&read("docs/learner-parameters.md"), "name");
    let base = Parameters::default();
    let Ok(Value::Object(defaults)) = serde_json::to_value(&base) else { panic!("an object") };
    let named: BTreeSet<&str> = table.iter().filter_map(|row| code(row.first()?)).collect();
    assert_eq!(named, defaults.keys().map(String::as_str).collect());
    assert_eq!(table.len(), defaults.len());
    for row in &table {
        let [name, acts, _unit, _range, default, _meaning] = row.as_slice() else {
            panic!("{row:?}")
        };
        let (name, default) = (code(name).expect("a name"), code(default).expect("a value"));
        // Texts stand there as they are.
        let told: Value = serde_json::from_str(default).unwrap_or_else(|_| json!(default));
        assert_eq!(told, defaults[name], "{name}");

        let patch = Map::from_iter([(name.to_owned(), other(name, &told))]);
        let posted = base.merged(&patch).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_ne!(posted, base, "{name}");
        let at_once = posted.acting_on(&base) == posted;
        assert_eq!(acts, if at_once { "at once" } else { "↺" }, "{name}");
    }
}

/// The routes in a section of the reference: methods and paths.
fn routes(section: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for row in rows(section, "route") {
        for piece in row.first().expect("a cell").split('`').skip(1).step_by(2) {
            let (method, path) = piece.split_once(' ').unwrap_or_else(|| panic!("{piece}"));
            found.push((method.to_owned(), path.to_owned()));
        }
    }
    found
}

#[actix_rt::test]
async fn every_route_of_the_reference_is_there_and_every_route_is_in_it() {
    let text = read("docs/http.md");
    let node = TestNode::start(|_| {});
    let mut told = BTreeSet::new();
    for port in [18080, 19000, 19020] {
        let title = format!("## Port {port}");
        let section = text.split(&title).nth(1).expect("a section").split("\n## ").next();
        let routes = routes(section.expect("a section"));
        assert!(routes.len() > 4, "{routes:?}");
        for (method, path) in routes {
            let asked = path.replace("{fn}", "fn-echo");
            let url = format!("http://{}:{port}{asked}", node.ip);
            let answered = send(&method, &url, &[], "").await;
            assert!(![404, 405].contains(&answered.status), "{method} {url}: {answered:?}");
            told.insert(path.replace("/{fn}", ""));
        }
    }
    for (method, url) in [
        ("PATCH", node.url("/configuration")),
        ("GET", node.url("/peer/function/fn-echo")),
        ("POST", node.discovery("/list")),
        ("POST", node.learner("/act")),
    ] {
        assert_eq!(send(method, &url, &[], "").await.status, 405, "{method} {url}");
    }
    assert_eq!(send("GET", &node.url("/function"), &[], "").await.status, 404);
    for method in ["PUT", "DELETE", "OPTIONS"] {
        let url = node.url("/function/fn-echo/x/y");
        assert_eq!(send(method, &url, &[], "").await.status, 200, "{method} {url}");
    }

    for file in pages::below("src", "rs") {
        let text = read(&file);
        for (begin, is_scope) in [("at(\"/", false), ("scope(\"/", true)] {
            for part in text.split(begin).skip(1) {
                let path = part.split('"').next().expect("a text").replace("/{fn}", "");
                let path = format!("/{path}");
                let below = |known: &String| is_scope && known.starts_with(&format!("{path}/"));
                let is_told = told.contains(&path) || told.iter().any(below);
                assert!(is_told, "{file}: {path} is not in docs/http.md");
            }
        }
    }
}

#[test]
fn every_header_of_ours_is_in_the_reference() {
    const OURS: [&str; 3] = ["x-p2pfaas-", "x-p2pfog-", "p2pfaas-"];
    let reference = read("docs/http.md").to_lowercase();
    let mut found = BTreeSet::new();
    for file in pages::below("src", "rs") {
        // Names of headers as the program has them, and not those of its tests.
        let text = read(&file);
        let text = text.split("\n#[cfg(test)]").next().expect("a part");
        for name in text.split("= \"").skip(1).filter_map(|part| part.split('"').next()) {
            // A file's name has a dot.
            let is_ours = |prefix: &&str| name.starts_with(prefix) && name.len() > prefix.len();
            if !name.contains('.') && OURS.iter().any(is_ours) {
                found.insert(name.to_owned());
            }
        }
    }
    assert!(found.len() > 25, "{found:?}");
    for name in found {
        assert!(reference.contains(&name), "{name} is not in docs/http.md");
    }
}

/// The statuses by the names that the program has for them.
fn status_named(name: &str) -> Option<u16> {
    (400..600).find(|status| {
        let known = awc::http::StatusCode::from_u16(*status).ok();
        let reason = known.and_then(|known| known.canonical_reason()).unwrap_or_default();
        reason.to_uppercase().replace([' ', '-'], "_") == name
    })
}

#[test]
fn every_status_and_code_of_an_error_is_in_the_reference() {
    let pair = |part: &str| {
        let (code, rest) = part.split_once(", StatusCode::")?;
        let name: String = rest.chars().take_while(|c| *c != ')').collect();
        let status = status_named(&name).unwrap_or_else(|| panic!("{name} is no status"));
        Some((status, code.parse::<u16>().ok()?))
    };
    let codes = read("src/wire/codes.rs");
    let known: BTreeSet<(u16, u16)> = codes.split("Self::new(").filter_map(pair).collect();
    assert!(known.len() > 12, "{known:?}");
    let number = |cell: &String| cell.parse::<u16>().unwrap_or_else(|why| panic!("{cell}: {why}"));
    let told: BTreeSet<(u16, u16)> = rows(&read("docs/http.md"), "status")
        .iter()
        .map(|row| (number(&row[0]), number(&row[1])))
        .collect();
    assert_eq!(told, known);
}
