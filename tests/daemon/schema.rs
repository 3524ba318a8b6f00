//! What a running daemon prints with `--json` is what the schemas of docs/schema/ describe: no field
//! is missing, none is of another type, and none is there that they do not have.

use std::{fs, path::Path, process::Command};

use serde_json::{Map, Value, json};

use super::switch::rack;
use crate::common::{
    daemons::{Bird, Routelet},
    net::Net,
};

const SWITCH: &str = "router id 10.1.1.1;
protocol device {}
protocol direct { ipv4; }
protocol static { ipv4; route 10.9.0.0/24 blackhole { bgp_community.add((10000,7)); }; }
protocol bfd { interface \"*\" { min rx interval 100 ms; min tx interval 100 ms; }; }
protocol bgp host1 {
  local 10.1.1.1 as 10000; neighbor 10.1.1.2 as 1000; bfd on;
  ipv4 { import all; export where source = RTS_STATIC; next hop self; };
}
";

const HOST: &str = "[bgp]\nas = 1000\n[[bgp.neighbor]]\naddress = \"gateway\"\nremote-as = 10000\nbfd = true\n\
    import = [\"in\"]\nexport = [\"out\"]\n\
    [[bgp.neighbor]]\naddress = \"10.1.1.9\"\nremote-as = \"external\"\n\
    [[policy.in]]\nprefixes = [\"10.9.0.0/16{16,32}\"]\naction = \"accept\"\n[[policy.in]]\naction = \"reject\"\n\
    [[policy.out]]\nsource = [\"network\"]\naction = \"accept\"\n\
    [advertise]\nnetworks = [\"10.244.1.0/24\"]\n";

#[test]
fn everything_that_a_daemon_prints_as_json_fits_its_schema() {
    let mut net = Net::new();
    let (switch, host) = rack(&mut net);
    let _bird = Bird::start(&net, &switch, SWITCH);
    let routelet = Routelet::start(&net, &host, HOST, &[]);
    routelet.wait_established("10.1.1.1");
    crate::common::wait_for("a route, and BFD", 20.0, || {
        let has_route = routelet.json(&["show", "routes"]).to_string().contains("10.9.0.0/24");
        (has_route && routelet.json(&["show", "bfd"])[0]["state"] == "up").then_some(())
    });
    let frr = net.dir().join("frr.conf");
    fs::write(&frr, "router bgp 1000\n neighbor 10.1.1.1 remote-as 10000\n frr is not this\n").unwrap();
    let frr = frr.to_str().unwrap();

    for (file, command) in [
        ("summary", &["show", "summary"][..]),
        ("neighbors", &["show", "neighbors"]),
        ("neighbor", &["show", "neighbor", "10.1.1.1"]),
        ("neighbor", &["show", "neighbor", "10.1.1.9"]),
        ("routes", &["show", "routes"]),
        ("routes", &["show", "routes", "10.9.0.0/24"]),
        ("routes", &["show", "routes", "10.244.1.0/24"]),
        ("fib", &["show", "fib"]),
        ("interfaces", &["show", "interfaces"]),
        ("host", &["show", "host"]),
        ("node", &["show", "node"]),
        ("bfd", &["show", "bfd"]),
        ("policy", &["show", "policy"]),
        ("events", &["show", "events"]),
        ("explain", &["explain", "10.9.0.5"]),
        ("explain", &["explain", "192.0.2.1"]),
        ("doctor", &["doctor"]),
        ("reload", &["reload", "--dry-run"]),
        ("convert", &["convert", "--from", "frr", frr]),
    ] {
        let value = printed(&host, &routelet, command);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/schema/{file}.json"));
        let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let wrong = differences(&schema, &value);
        assert!(wrong.is_empty(), "{command:?} does not fit docs/schema/{file}.json:\n{}", wrong.join("\n"));
    }
}

/// The JSON of a command, whatever its exit status.
fn printed(host: &crate::common::net::Ns, routelet: &Routelet, arguments: &[&str]) -> Value {
    let mut command: Command = host.command(env!("CARGO_BIN_EXE_routelet"));
    command.args(arguments).arg("--json");
    if arguments[0] != "convert" {
        command.arg("--socket").arg(routelet.socket());
    }
    let done = command.output().unwrap();
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {error}"))
}

fn differences(schema: &Value, value: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    Checked { root: schema }.check(schema, value, "", &mut wrong);
    wrong
}

struct Checked<'s> {
    root: &'s Value,
}

impl Checked<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        let Some(schema) = schema.as_object() else {
            assert_eq!(schema, &json!(true), "{at}: a schema that nothing fits");
            return;
        };
        for (keyword, of) in schema {
            match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "default" | "format" | "required" => {}
                "$ref" => {
                    let name = of.as_str().unwrap().trim_start_matches('#');
                    let target = self.root.pointer(name).unwrap_or_else(|| panic!("no {name}"));
                    self.check(target, value, at, wrong);
                }
                "anyOf" | "oneOf" => self.any(of.as_array().unwrap(), value, at, wrong),
                "const" if of != value => wrong.push(format!("{at}: {value}, not {of}")),
                "enum" if !of.as_array().unwrap().contains(value) => wrong.push(format!("{at}: {value}")),
                "const" | "enum" => {}
                "type" if !is_of(of, value) => wrong.push(format!("{at}: {value} is no {of}")),
                "type" => {}
                "minimum" | "maximum" => {
                    let (limit, number) = (of.as_f64().unwrap(), value.as_f64());
                    if number.is_some_and(|n| if keyword == "minimum" { n < limit } else { n > limit }) {
                        wrong.push(format!("{at}: {value} beyond {of}"));
                    }
                }
                "items" => {
                    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(of, item, &format!("{at}[{n}]"), wrong);
                    }
                }
                "properties" | "additionalProperties" | "propertyNames" => {}
                other => panic!("{at}: this test does not know the keyword {other}"),
            }
        }
        if let Some(object) = value.as_object() {
            self.object(schema, object, at, wrong);
        }
    }

    fn any(&self, schemas: &[Value], value: &Value, at: &str, wrong: &mut Vec<String>) {
        let mut least: Option<Vec<String>> = None;
        for schema in schemas {
            let mut found = Vec::new();
            self.check(schema, value, at, &mut found);
            if least.as_ref().is_none_or(|least| found.len() < least.len()) {
                least = Some(found);
            }
        }
        wrong.extend(least.unwrap_or_default());
    }

    fn object(
        &self,
        schema: &Map<String, Value>,
        object: &Map<String, Value>,
        at: &str,
        wrong: &mut Vec<String>,
    ) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if !object.contains_key(name.as_str().unwrap()) {
                wrong.push(format!("{at}: no {name}"));
            }
        }
        for (name, value) in object {
            let inside = format!("{at}.{name}");
            match properties.and_then(|all| all.get(name)).or(others) {
                Some(schema) => self.check(schema, value, &inside, wrong),
                None if properties.is_some() => wrong.push(format!("{inside}: not in the schema")),
                None => {}
            }
        }
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind {
        Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
        _ => match kind.as_str().unwrap() {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("no type {other}"),
        },
    }
}

#[test]
fn what_does_not_fit_a_schema_is_found() {
    let schema = json!({ "type": "object", "required": ["a"], "properties": {
        "a": { "type": ["string", "null"] }, "b": { "type": "array", "items": { "$ref": "#/$defs/n" } },
        "c": { "type": "object", "additionalProperties": { "$ref": "#/$defs/n" } },
        "d": { "anyOf": [{ "$ref": "#/$defs/n" }, { "type": "null" }] } },
        "$defs": { "n": { "type": "integer", "minimum": 0 } } });
    for (value, faults) in [
        (json!({ "a": "x" }), 0),
        (json!({ "a": null, "b": [1, 2], "c": { "x": 1 }, "d": null }), 0),
        (json!({}), 1),
        (json!({ "a": 1 }), 1),
        (json!({ "a": "x", "b": [1, "2", -3] }), 2),
        (json!({ "a": "x", "c": { "x": true } }), 1),
        (json!({ "a": "x", "d": "y" }), 1),
        (json!({ "a": "x", "e": 1 }), 1),
        (json!([]), 1),
    ] {
        let found = differences(&schema, &value);
        assert_eq!(found.len(), faults, "{value}: {found:?}");
    }
}
