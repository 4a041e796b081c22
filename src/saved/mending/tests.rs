use super::*;
use serde_json::json;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

fn told(mended: &[Mended]) -> Vec<String> {
    mended.iter().map(|m| format!("{}: {} → {}", m.key, m.given, m.taken)).collect()
}

#[test]
fn numbers_that_json_does_not_have_become_texts() {
    let huge = "9".repeat(400);
    for (text, json) in [
        ("{}", "{}".to_owned()),
        (r#"{"a": NaN}"#, r#"{"a": "NaN"}"#.to_owned()),
        (r#"{"a":[Infinity,-Infinity ,1]}"#, r#"{"a":["Infinity","-Infinity" ,1]}"#.to_owned()),
        (
            r#"{"NaN":"NaN","b":"\"NaN","c":true}"#,
            r#"{"NaN":"NaN","b":"\"NaN","c":true}"#.to_owned(),
        ),
        (&format!(r#"{{"a":-{huge}}}"#), format!(r#"{{"a":"-{huge}"}}"#)),
        (r#"{"a":1e999,"b":1e-5}"#, r#"{"a":"1e999","b":1e-5}"#.to_owned()),
        ("NaNs", "NaNs".to_owned()),
        ("\"\\", "\"\\".to_owned()),
    ] {
        assert_eq!(String::from_utf8_lossy(&as_json(text.as_bytes())), json);
    }
}

#[test]
fn limits_are_the_nearest_that_a_queue_can_have() {
    let base = Limits { k: 7, queue_length_max: 9, queue_enabled: true };
    let key = "queue_length_max";
    for (stored, taken, mended) in [
        (json!({key: 4294967296u64}), u32::MAX, vec!["queue_length_max: 4294967296 → 4294967295"]),
        (
            json!({key: u64::MAX}),
            u32::MAX,
            vec!["queue_length_max: 18446744073709551615 → 4294967295"],
        ),
        (json!({key: -1}), 0, vec!["queue_length_max: -1 → 0"]),
        (json!({key: 2.0}), 2, vec!["queue_length_max: 2.0 → 2"]),
        (json!({key: "3"}), 3, vec!["queue_length_max: \"3\" → 3"]),
        (json!({key: "NaN"}), 9, vec!["queue_length_max: \"NaN\" → 9"]),
        (json!({key: []}), 9, vec!["queue_length_max: [] → 9"]),
        (json!({key: null}), 9, vec![]),
        (json!({key: 5}), 5, vec![]),
    ] {
        let read = limits(&object(stored.clone()), base);
        assert_eq!(read.value.over(base).queue_length_max, taken, "{stored}");
        assert_eq!(told(&read.mended), mended, "{stored}");
    }
    let stored = json!({"parallel_running_functions_max": -3, "queue_enabled": "false"});
    let read = limits(&object(stored), base);
    let limits = read.value.over(base);
    assert_eq!((limits.k, limits.queue_enabled, read.mended.len()), (0, false, 2));
}

#[test]
fn a_machine_is_named_so_that_headers_can_tell_it() {
    let long = "n".repeat(300);
    let stored = json!({
        "machine_ip": "node-1", "machine_id": "n\u{f8}d\n\u{30ce}", "machine_group_name": long,
        "init_servers": ["10.0.0.1", 7, null, "10.0.0.2"], "of_v1_only": 1,
    });
    let Read { value, mended } = machine(&object(stored)).expect("mended");
    assert_eq!(
        (value.machine_ip.as_deref(), value.machine_id.as_deref()),
        (Some(""), Some("n_d__"))
    );
    assert_eq!(value.machine_group_name.as_deref(), Some(&*"n".repeat(255)));
    assert_eq!(
        value.init_servers.as_deref(),
        Some(&["10.0.0.1", "10.0.0.2"].map(str::to_owned)[..])
    );
    assert!(value.check().is_ok());
    let keys: Vec<&str> = mended.iter().map(|mended| mended.key.as_str()).collect();
    assert_eq!(keys, ["machine_ip", "machine_id", "machine_group_name", "init_servers"]);
    assert_eq!(mended[0].taken, "unset");

    let trimmed = machine(&object(json!({"machine_ip": " 10.0.0.9\n"}))).expect("mended");
    assert_eq!(trimmed.value.machine_ip.as_deref(), Some("10.0.0.9"));
    let fine = json!({"machine_ip": "10.0.0.9", "machine_id": "", "init_servers": null});
    assert!(machine(&object(fine)).expect("fine").mended.is_empty());
    let one =
        machine(&object(json!({"init_servers": "10.0.0.1", "machine_id": 5}))).expect("mended");
    assert_eq!(one.value.init_servers.map(|all| all.len()), Some(1));
    assert_eq!(one.value.machine_id.as_deref(), Some("5"));
    let none = machine(&object(json!({"init_servers": 5}))).expect("mended");
    assert_eq!((none.value.init_servers, none.mended.len()), (None, 1));
    assert!(machine(&object(json!({"neighbours": 5}))).is_err(), "v1 has none");
}

#[test]
fn parameters_of_an_algorithm_may_be_numbers() {
    let stored = json!({"name": "PowerOfNScheduler", "parameters": ["1", 2.0, true, 1e9]});
    let Read { value, mended } = scheduler(&object(stored)).expect("mended");
    assert_eq!(value.words(), "PowerOfNScheduler 1 2 true 1000000000");
    assert_eq!(mended.iter().filter(|mended| mended.key.contains("max hops")).count(), 1);
    for wrong in [
        json!({"name": 5}),
        json!({"name": "Nope"}),
        json!({"name": "NoScheduler", "parameters": "true"}),
        json!({"name": "NoScheduler", "parameters": [null]}),
        json!({"name": "NoScheduler", "parameters": []}),
    ] {
        assert!(scheduler(&object(wrong.clone())).is_err(), "{wrong}");
    }
}
