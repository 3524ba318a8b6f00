//! Generates documents from the definitions of the keys: the example file, the tables of the
//! reference page, and the JSON schema of the file. `ROUTELET_WRITE=1 cargo test --test docs`
//! writes them.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{
    Advertise, Bgp, Cni, Config, Control, Docker, Fib, Guard, Kubernetes, Log, Masquerade, Metrics,
    NeighborKeys, Security, ServiceRules,
    keys::{self, Key, Note, RangeKeys, Shape, StatementKeys, Table, without_links},
};

/// Columns of comments in the example file.
const WIDTH: usize = 100;

/// All tables in the order of the example file.
pub(super) fn all() -> Vec<Table> {
    let shared = neighbor_keys().keys.into_iter().filter(|key| key.has(Note::Shared));
    let mut bgp = Bgp::table();
    bgp.keys.extend(shared);
    let mut kubernetes = Kubernetes::table();
    kubernetes.keys.extend(ServiceRules::table().keys);
    vec![
        Config::table(),
        bgp,
        neighbor_keys(),
        RangeKeys::table(),
        Advertise::table(),
        StatementKeys::table(),
        Fib::table(),
        kubernetes,
        Cni::table(),
        Docker::table(),
        Masquerade::table(),
        Guard::table(),
        Security::table(),
        Metrics::table(),
        Control::table(),
        Log::table(),
    ]
}

/// The keys, dotted, that take effect at the next start only.
pub fn for_the_next_start() -> Vec<String> {
    let dotted = |table: &Table, key: &Key| {
        let name = table.heading.trim_matches(['[', ']']);
        if name.is_empty() { key.name.to_owned() } else { format!("{name}.{}", key.name) }
    };
    let late = |table: &Table| {
        let keys = table.keys.iter().filter(|key| key.has(Note::Restart));
        keys.map(|key| dotted(table, key)).collect::<Vec<_>>()
    };
    all().iter().flat_map(late).collect()
}

fn neighbor_keys() -> Table {
    Table { keys: keys::of_neighbors(), ..NeighborKeys::table_with_defaults() }
}

/// `deploy/routelet.toml`: every key with its default.
pub fn example() -> String {
    let mut file = HEAD.to_owned();
    for table in all() {
        // Repeated tables have no defaults to show, but examples.
        let is_template = table.heading.starts_with("[[");
        let off = if is_template { "#" } else { "" };
        if !table.heading.is_empty() {
            file.push('\n');
            if table.heading == NEIGHBOR {
                file.push_str(GROUP);
            }
            comment(&mut file, &without_links(&table.doc));
            let heading = table.heading.replace("NAME", "from-leaf");
            let _ = writeln!(file, "{off}{heading}");
        }
        for key in &table.keys {
            comment(&mut file, &key.explanation());
            let hash = match key.example() {
                _ if key.has(Note::Alternative) => "##",
                Some(_) => "#",
                None => off,
            };
            let value = key.example().map_or_else(|| toml(&key.default), str::to_owned);
            let _ = writeln!(file, "{hash}{} = {value}", key.name);
        }
    }
    file
}

const NEIGHBOR: &str = "[[bgp.neighbor]]";

const HEAD: &str = "\
# /etc/routelet/routelet.toml: every key with its default.
#
# Lines that begin with \"#\" and a key (no blank between) have no default, or need a value of yours;
# remove the \"#\" to use them. \"##\" marks a key that excludes one above it. `routelet check` prints
# what is wrong with a file; `routelet reload` applies it without ending sessions that did not
# change. Times are in seconds. An empty file is valid under Kubernetes, and on a bare host.
#
# Written from src/config/keys/ by `ROUTELET_WRITE=1 cargo test --test docs`.

";

const GROUP: &str = "\
# A template: `group = \"tor\"` gives a neighbor these keys unless it sets them itself. The groups
# \"gateway\", \"mesh\" and \"reflectors\" exist without being written, for the neighbors that
# kubernetes.peering makes.
#[bgp.group.tor]
#remote-as = \"external\"
#password-file = \"/etc/routelet/tor.password\"

";

/// A comment, wrapped.
fn comment(file: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(file, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(file, "{line}");
}

/// A value of the file.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// The tables of the reference page, each with its heading.
pub fn tables() -> String {
    let mut page = String::new();
    for table in all() {
        if table.heading.is_empty() {
            let _ = write!(page, "### Top level\n\n");
        } else {
            let also = if table.heading == NEIGHBOR { " and `[bgp.group.NAME]`" } else { "" };
            let _ = write!(page, "### `{}`{also}\n\n{}\n\n", table.heading, wrapped(&table.doc));
        }
        if table.heading == NEIGHBOR {
            let _ = write!(page, "{}\n\n", wrapped(OF_GROUPS));
        }
        page.push_str("| key | default | meaning |\n| --- | --- | --- |\n");
        for key in &table.keys {
            let default = match (key.default_text(), &key.default) {
                (Some(text), _) => text.to_owned(),
                (None, Value::Null) => "–".to_owned(),
                (None, Value::Bool(value)) => value.to_string(),
                (None, Value::Number(value)) => value.to_string(),
                (None, value) => format!("`{}`", toml(value)),
            };
            let mut meaning = key.described();
            if let Shape::Table(keys) = table_in(&key.shape) {
                meaning.push_str(" Keys of the table: ");
                meaning.push_str(&keys.iter().map(of_inner_table).collect::<Vec<_>>().join("; "));
                meaning.push('.');
            }
            if key.has(Note::Restart) {
                meaning.push_str(" A change takes effect at the next start.");
            }
            let _ = writeln!(page, "| `{}` | {} | {} |", key.name, cell(&default), cell(&meaning));
        }
        page.push('\n');
    }
    page
}

const OF_GROUPS: &str = "A group has all keys but `address`, `interface`, `limit` and `group`. Keys that `[bgp]` \
                         has as well override those there.";

/// The table among the values of a key.
fn table_in(shape: &Shape) -> &Shape {
    let found = if let Shape::Either(shapes) = shape { shapes.last() } else { None };
    found.unwrap_or(shape)
}

fn of_inner_table(key: &Key) -> String {
    let default = match key.default_text() {
        Some(text) => format!(" ({text})"),
        None if key.default.is_null() => String::new(),
        None => format!(" ({})", key.default),
    };
    let doc = key.doc.trim_end_matches('.');
    format!("`{}`{default}: {}{}", key.name, doc[..1].to_lowercase(), &doc[1..])
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    comment(&mut lines, text);
    lines.lines().map(|line| line.trim_start_matches("# ")).collect::<Vec<_>>().join("\n")
}

/// A JSON schema of the file, for editors.
pub fn schema() -> Value {
    let mut root = object(&[]);
    for table in all() {
        let path: Vec<&str> = table.heading.trim_matches(['[', ']']).split('.').collect();
        let mut own = object(&table.keys);
        if !table.doc.is_empty() && !table.heading.is_empty() {
            own.insert("description".into(), without_links(&table.doc).into());
        }
        match path.as_slice() {
            [""] => merge(&mut root, own),
            ["bgp", inner] => {
                let list = json!({ "type": "array", "items": own });
                property(&mut root, "bgp").insert((*inner).to_owned(), list);
            }
            ["policy", _] => {
                let statements = json!({ "type": "array", "items": own });
                let policies = json!({ "type": "object", "additionalProperties": statements });
                properties(&mut root).insert("policy".into(), policies);
            }
            [name, ..] => {
                properties(&mut root).insert((*name).to_owned(), own.into());
            }
            [] => {}
        }
    }
    let group = object(&NeighborKeys::table_with_defaults().keys);
    let groups = json!({ "type": "object", "additionalProperties": group });
    property(&mut root, "bgp").insert("group".into(), groups);
    root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    root.insert("title".into(), "routelet.toml".into());
    root.into()
}

/// An object with these keys and no others.
fn object(keys: &[Key]) -> Map<String, Value> {
    let properties: Map<_, _> = keys.iter().map(|key| (key.name.to_owned(), described(key))).collect();
    let mut object = Map::new();
    object.insert("type".into(), "object".into());
    object.insert("properties".into(), properties.into());
    object.insert("additionalProperties".into(), false.into());
    object
}

fn merge(root: &mut Map<String, Value>, own: Map<String, Value>) {
    if let Some(Value::Object(more)) = own.get("properties") {
        properties(root).extend(more.clone());
    }
}

fn properties(object: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let entry = object.entry("properties").or_insert_with(|| json!({}));
    entry.as_object_mut().expect("properties are an object")
}

/// The properties of a table in the root.
fn property<'v>(root: &'v mut Map<String, Value>, name: &str) -> &'v mut Map<String, Value> {
    let table = properties(root).entry(name).or_insert_with(|| json!({ "type": "object" }));
    properties(table.as_object_mut().expect("a table is an object"))
}

fn described(key: &Key) -> Value {
    let mut schema = values(&key.shape);
    schema.insert("description".into(), key.explanation().into());
    if key.default_text().is_none() && !key.default.is_null() {
        schema.insert("default".into(), key.default.clone());
    }
    schema.into()
}

/// The schema of a value.
fn values(shape: &Shape) -> Map<String, Value> {
    let value = match shape {
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Number { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Text => json!({ "type": "string" }),
        Shape::Choice(of) => json!({ "type": "string", "enum": of }),
        Shape::List(of) => {
            let one = values(of);
            json!({ "anyOf": [{ "type": "array", "items": one.clone() }, one] })
        }
        Shape::Either(shapes) => json!({ "anyOf": shapes.iter().map(values).collect::<Vec<_>>() }),
        Shape::Table(keys) => return object(keys),
        Shape::AnyTable => json!({ "type": "object" }),
    };
    value.as_object().cloned().unwrap_or_default()
}
