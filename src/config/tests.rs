//! The layers of settings, and what is wrong with them.

use super::*;
use crate::keys::Allowed;

fn load(
    toml: &str,
    env: &[(&str, &str)],
    flags: &[(&str, config::Value)],
) -> Result<Loaded, Vec<Problem>> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("node.toml");
    std::fs::write(&path, toml).expect("writable");
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Settings::load(Some(&path), env, flags)
}

fn problem_keys(result: Result<Loaded, Vec<Problem>>) -> Vec<String> {
    result.expect_err("there are problems").into_iter().map(|p| p.key).collect()
}

#[test]
fn later_layers_win_file_then_environment_then_flags() {
    let toml = "poll_time_s = 9\nqueue_length_max = 9\nworkers = 9";
    let env = [("P2PFAAS_QUEUE_LENGTH_MAX", "8"), ("P2PFAAS_WORKERS", "8")];
    let loaded = load(toml, &env, &[("workers", 7.into())]).expect("good");
    let got = loaded.settings;
    assert_eq!((got.poll_time_s, got.queue_length_max, got.workers), (9.0, 8, 7));
    assert_eq!(got.parallel_running_functions_max, 4, "a default");
}

#[test]
fn v1_environment_names_keep_their_meaning() {
    let env = [
        ("P2PFAAS_POLL_TIME", "120"),
        ("P2PFAAS_POLL_TIMEOUT", "5"),
        ("P2PFAAS_MACHINE_DEAD_POLLS_THRESHOLD", "20"),
        ("P2PFAAS_INIT_SERVERS", "10.0.0.1, 10.0.0.2,"),
        ("P2PFAAS_FNS_LIST", "fn-a,fn_b"),
        ("P2PFAAS_MACHINE_ID", "0042"),
        ("P2PFAAS_DATA_PATH", "/elsewhere"),
        ("P2PFAAS_DEFAULT_IFACE", "wlan0"),
        ("P2PFAAS_LOG_ENV", "development"),
        ("P2PFAAS_DEV_ENV", "production"),
        ("P2PFAAS_OPENFAAS_ENABLED", "false"),
        ("P2PFAAS_SERVICE_DISCOVERY_HOST", "discovery"),
        ("P2PFAAS_SERVICE_DISCOVERY_PORT", "19001"),
    ];
    let loaded = load("", &env, &[]).expect("good");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let got = loaded.settings;
    assert_eq!((got.poll_time_s, got.poll_timeout_s), (120.0, 5.0));
    assert_eq!(got.machine_dead_polls_threshold, 20);
    assert_eq!(got.init_servers, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(got.fns_list, ["fn-a", "fn_b"]);
    assert_eq!(got.machine_id, "0042", "no number");
    assert_eq!(got.data_path, Path::new("/elsewhere"));
    assert_eq!((&*got.default_iface, &*got.log_env), ("wlan0", "development"));
    assert_eq!((&*got.service_discovery_host, got.service_discovery_port), ("discovery", 19001));
}

#[test]
fn every_problem_is_reported_at_once_with_its_key() {
    let toml = "poll_time_s = -1\nnonsense = 3\nscheduler = \"Nope\"\nmachine_ip = \"x\"\n\
                queue_enabled = \"maybe\"\nfns_list = [\"localhost\"]";
    let env = [("P2PFAAS_WORKERS", "many"), ("P2PFAAS_QUEUE_LENGTH_MAX", "-3")];
    let mut keys = problem_keys(load(toml, &env, &[]));
    keys.sort();
    let mut want = [
        "poll_time_s",
        "nonsense",
        "scheduler",
        "machine_ip",
        "queue_enabled",
        "fns_list",
        "workers",
        "queue_length_max",
    ];
    want.sort_unstable();
    assert_eq!(keys, want);
}

#[test]
fn a_file_that_is_no_toml_is_named() {
    assert!(problem_keys(load("= 3", &[], &[]))[0].ends_with("node.toml"));
}

#[test]
fn an_unknown_environment_name_is_a_warning() {
    let loaded = load("", &[("P2PFAAS_TYPO", "1")], &[]).expect("good");
    assert!(loaded.warnings[0].contains("P2PFAAS_TYPO"));
}

#[test]
fn what_keeps_strangers_out_is_not_left_out_by_mistake() {
    for name in [
        "P2PFAAS_CLUSTER_KEY",
        "P2PFAAS_CLUSTER_KEY_FILE",
        "P2PFAAS_ADMIN_TOKEN",
        "P2PFAAS_ADMIN_TOKEN_FILE",
    ] {
        assert_eq!(problem_keys(load("", &[(name, "")], &[])), [name]);
    }
    let others = [("P2PFAAS_MACHINE_ID", ""), ("P2PFAAS_POLL_TIME", "")];
    assert!(load("", &others, &[]).is_ok(), "elsewhere nothing is the default");
}

#[test]
fn v1s_names_turn_openfaas_on() {
    let env = [
        ("P2PFAAS_OPENFAAS_ENABLED", "true"),
        ("P2PFAAS_OPENFAAS_HOST", "10.0.0.9"),
        ("P2PFAAS_OPENFAAS_PORT", "31112"),
    ];
    let got = load("", &env, &[]).expect("good").settings;
    let told = (got.openfaas_enabled, &*got.openfaas_host, got.openfaas_port);
    assert_eq!(told, (true, "10.0.0.9", 31112));
    let bad = [env[0], ("P2PFAAS_OPENFAAS_HOST", "http://gateway")];
    assert_eq!(problem_keys(load("", &bad, &[])), ["openfaas_host"]);
}

#[test]
fn booleans_in_the_environment_are_written_as_v1_takes_them() {
    for (text, want) in [("T", true), ("1", true), ("True", true), ("f", false), ("0", false)] {
        let got = load("", &[("P2PFAAS_OPENFAAS_ENABLED", text)], &[]).expect("good");
        assert_eq!(got.settings.openfaas_enabled, want, "{text}");
    }
    let bad = [("P2PFAAS_QUEUE_ENABLED", "maybe")];
    assert_eq!(problem_keys(load("", &bad, &[])), ["queue_enabled"]);
}

#[test]
fn init_servers_are_addresses_or_host_names() {
    let good = load("", &[("P2PFAAS_INIT_SERVERS", "10.0.0.1, p2pfaas-peers")], &[]);
    assert_eq!(good.expect("good").settings.init_servers, ["10.0.0.1", "p2pfaas-peers"]);
    let bad = [("P2PFAAS_INIT_SERVERS", "10.0.0.1:19000")];
    assert_eq!(problem_keys(load("", &bad, &[])), ["init_servers"]);
}

#[test]
fn total_timeouts_are_a_table_or_a_list() {
    let table = load("[function_total_timeouts_s]\nfn-a = 30\nfn-b = 0.5", &[], &[]).expect("good");
    let list =
        load("function_total_timeouts_s = [\"fn-a=30\", \"fn-b = 0.5\"]", &[], &[]).expect("good");
    let named = table.settings.function_total_timeouts_s;
    assert_eq!(named, list.settings.function_total_timeouts_s);
    assert_eq!(
        named.0.into_iter().collect::<Vec<_>>(),
        [("fn-a".into(), 30.0), ("fn-b".into(), 0.5)]
    );
    for bad in ["fn-a = 0", "fn-a = 1e9", "fn-a = nan", "fn-a = \"x\"", "\"/\" = 1"] {
        let loaded = load(&format!("[function_total_timeouts_s]\n{bad}"), &[], &[]);
        assert_eq!(problem_keys(loaded), ["function_total_timeouts_s"], "{bad}");
    }
}

#[test]
fn routes_are_a_table_or_a_list() {
    let table = load("[routes]\nfn-a = \"http://10.0.0.1:1/\"", &[], &[]).expect("good");
    let list = load("", &[("P2PFAAS_ROUTES", "fn-a=http://10.0.0.1:1/")], &[]).expect("good");
    assert_eq!(table.settings.routes, list.settings.routes);
    load("fns_list = [\"fn.edge.local\"]\n[routes]\n\"a.b\" = \"http://x/\"", &[], &[])
        .expect("good");
    for bad in [
        "fn-a = \"10.0.0.1\"",
        "fn-a = \"https://x/\"",
        "\"a..b\" = \"http://x/\"",
        "\"10.0.0.1\" = \"http://x/\"",
    ] {
        assert_eq!(problem_keys(load(&format!("[routes]\n{bad}"), &[], &[])), ["routes"]);
    }
}

#[test]
fn what_is_printed_reads_back_the_same() {
    let toml = "fn_seed = 7\n[routes]\nfn-a = \"http://10.0.0.1:1/\"";
    let settings = load(toml, &[], &[]).expect("good").settings;
    let printed = toml::to_string(&settings).expect("TOML");
    assert_eq!(load(&printed, &[], &[]).expect("good").settings, settings);
}

/// The only problem's words.
fn only_problem(loaded: Result<Loaded, Vec<Problem>>) -> String {
    let problems = loaded.expect_err("a problem");
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].to_string()
}

#[test]
fn messages_name_the_key_what_was_given_and_what_is_allowed() {
    for (name, value, words) in [
        ("P2PFAAS_ADMIN", "nobody", ["admin", "\"nobody\"", "any, loopback, off"]),
        ("P2PFAAS_SCHEDULER_PORT", "70000", ["scheduler_port", "70000", "0 to 65535"]),
        ("P2PFAAS_HOST", "fog-1", ["host", "\"fog-1\"", "an IP address"]),
        ("P2PFAAS_QUEUE_ENABLED", "maybe", ["queue_enabled", "\"maybe\"", "true or false"]),
        ("P2PFAAS_PARALLEL_RUNNING_FUNCTIONS_MAX", "-1", ["running", "-1", "0 to 4294967295"]),
        ("P2PFAAS_LOG_FORMAT", "xml", ["log_format", "\"xml\"", "text, json"]),
    ] {
        let told = only_problem(load("", &[(name, value)], &[]));
        for word in words {
            assert!(told.contains(word), "{word} is not in: {told}");
        }
    }
    let told = only_problem(load("k = 3", &[], &[]));
    assert!(told.contains("parallel_running_functions_max"), "{told}");
}

#[test]
fn settings_that_belong_together_are_checked_together() {
    let told = only_problem(load("forward_timeout_s = 2\nfunction_timeout_s = 3", &[], &[]));
    assert!(told.contains("forward_timeout_s") && told.contains("function_timeout_s"), "{told}");
    assert!(load("forward_timeout_s = 3\nfunction_timeout_s = 3", &[], &[]).is_ok());
}

#[test]
fn every_word_that_a_setting_lists_can_be_given_and_every_default_is_in_its_range() {
    let mut words_read = 0;
    for key in Settings::KEYS {
        let Allowed::OneOf(words) = key.allowed else { continue };
        for word in words() {
            let loaded = load(&format!("{} = {word:?}", key.name), &[], &[]);
            assert!(loaded.is_ok(), "{} {word}: {loaded:?}", key.name);
            words_read += 1;
        }
    }
    assert!(words_read >= 7, "{words_read}");
    let defaults = toml::to_string(&Settings::default()).expect("TOML");
    assert_eq!(load(&defaults, &[], &[]).expect("good").settings, Settings::default());
}

#[test]
fn service_links_of_kubernetes_are_no_settings() {
    let links = [
        ("P2PFAAS_SCHEDULER_PORT", "tcp://10.96.0.7:18080"),
        ("P2PFAAS_SCHEDULER_PORT_18080_TCP", "tcp://10.96.0.7:18080"),
        ("P2PFAAS_SCHEDULER_PORT_18080_TCP_ADDR", "10.96.0.7"),
        ("P2PFAAS_SCHEDULER_PORT_18080_TCP_PORT", "18080"),
        ("P2PFAAS_SCHEDULER_PORT_18080_TCP_PROTO", "tcp"),
        ("P2PFAAS_SCHEDULER_SERVICE_HOST", "10.96.0.7"),
        ("P2PFAAS_SCHEDULER_SERVICE_PORT", "18080"),
        ("P2PFAAS_SCHEDULER_SERVICE_PORT_CALLS", "18080"),
        ("P2PFAAS_SERVICE_DISCOVERY_PORT", "udp://10.96.0.7:19000"),
    ];
    let loaded = load("", &links, &[]).expect("good");
    assert_eq!(loaded.settings, Settings::default());
    let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
    assert!(links.iter().all(|(name, _)| warning.contains(name)), "{warning}");
    // What is set on purpose is.
    let set = [("P2PFAAS_SCHEDULER_PORT", "18081"), ("P2PFAAS_SERVICE_DISCOVERY_PORT", "19001")];
    let loaded = load("", &set, &[]).expect("good");
    assert_eq!((loaded.settings.scheduler_port, loaded.warnings.len()), (18081, 0));
    assert!(load("", &[("P2PFAAS_DISCOVERY_PORT", "http://x")], &[]).is_err());
}

const TOKEN: &str = "a-token-that-nobody-sees";

#[test]
fn a_secret_is_in_no_message_whatever_is_wrong() {
    let quoted = format!("admin_token = \"{TOKEN}\"\n");
    let loaded = load(&quoted, &[], &[]).expect("good");
    assert_eq!(loaded.settings.admin_token.reveal(), TOKEN);
    let printed = toml::to_string(&loaded.settings).expect("TOML");
    assert!(!printed.contains("admin_token") && !format!("{loaded:?}").contains(TOKEN));
    let env = [("P2PFAAS_ADMIN_TOKEN", TOKEN)];
    assert_eq!(load("", &env, &[]).expect("good").settings.admin_token.reveal(), TOKEN);
    let unclosed = format!("workers = 1\nadmin_token = \"{TOKEN}\n");
    let bare = format!("admin_token = {TOKEN}");
    let list = format!("admin_token = [\"{TOKEN}\", 3]");
    let table = format!("[admin_token]\na = \"{TOKEN}\"");
    let spaced = format!("admin_token = \"{TOKEN} {TOKEN}\"");
    let both = format!("{quoted}admin_token_file = \"/run/token\"");
    for (text, why) in [
        (unclosed, "line 2 cannot be read as TOML"),
        (bare, "line 1 cannot be read as TOML"),
        (list, "admin_token: what was given is no text"),
        (table, "admin_token: what was given is no text"),
        (
            spaced,
            "admin_token: what was given is no token: that has 16 to 512 visible ASCII characters",
        ),
        (both, "admin_token_file: admin_token and admin_token_file are both set"),
    ] {
        let told = only_problem(load(&text, &[], &[]));
        assert!(told.contains(why) && !told.contains("nobody-sees"), "{told}");
    }
    let mistyped = format!("admin_tokn = \"{TOKEN}\"");
    assert!(!only_problem(load(&mistyped, &[], &[])).contains("nobody-sees"));
}

#[test]
fn no_secret_has_a_flag_for_everybody_sees_the_arguments_of_programs() {
    let secrets: Vec<_> = Settings::KEYS.iter().filter(|key| key.secret).collect();
    assert!(secrets.iter().any(|key| key.name == "admin_token"));
    assert!(secrets.iter().all(|key| key.flag.is_none()), "{secrets:?}");
}

#[test]
fn a_certificate_and_its_key_go_together() {
    for one in ["tls_cert", "tls_key"] {
        let told = only_problem(load(&format!("{one} = \"x.pem\""), &[], &[]));
        assert!(told.starts_with(&format!("{one}: ")), "{told}");
    }
    assert!(load("tls_cert = \"c.pem\"\ntls_key = \"k.pem\"", &[], &[]).is_ok());
}
