//! `show config` as a file that `check` accepts, and that leads to the same configuration.
//!
//! It contains the keys of the file in force, with all defaults. Settings that follow from the host
//! and the cluster (the neighbors at gateways, of a mesh, of objects) are in comments: as keys they
//! would no longer follow. Passwords are hidden.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{
    AsSetting, Config, Neighbor, NeighborId,
    keys::Place,
    view::{drop_nulls, effective},
};
use crate::bgp::peer::{Global, PeerConfig};

/// The configuration as a file. `global` and `peers` come from the plan, as of [`effective`].
pub fn as_file<'p>(
    config: &Config,
    global: Option<&Global>,
    peers: impl IntoIterator<Item = &'p PeerConfig>,
) -> String {
    let in_force = effective(config, global, peers);
    let mut text = toml::to_string_pretty(&written(config))
        .unwrap_or_else(|e| format!("# The configuration cannot be printed: {e}\n"));
    if let Some(global) = global {
        let Global { asn, router_id, cluster_id, .. } = global;
        let _ = write!(
            text,
            "\n# In force: as = {asn}, router-id = \"{router_id}\", cluster-id = \"{cluster_id}\"\n"
        );
    }
    if let Some(peers) = in_force["bgp"]["neighbor"].as_array() {
        text.push_str(
            "\n# All neighbors, with those that follow from gateways, interfaces and the cluster:\n",
        );
        for peer in peers {
            text.push_str("#\n");
            commented(&mut text, &json!({ "bgp": { "neighbor": [peer] } }));
        }
    }
    text
}

fn commented(text: &mut String, value: &Value) {
    let table = toml::to_string(value).unwrap_or_default();
    // The heading of the table around it is not needed.
    for line in table.lines().filter(|line| !line.is_empty() && *line != "[bgp]") {
        let _ = writeln!(text, "# {line}");
    }
}

/// The keys of the file in force, with all defaults.
fn written(config: &Config) -> Value {
    let mut value = effective(config, None, []);
    if config.is_bare_host {
        // A file that has one of them is not that of a bare host.
        if let Some(root) = value.as_object_mut() {
            root.remove("bgp");
            root.remove("advertise");
        }
        return value;
    }
    if let Some(bgp) = value["bgp"].as_object_mut() {
        if config.bgp.asn == AsSetting::Default {
            bgp.remove("as");
        }
        if !config.bgp.neighbors.is_empty() {
            bgp.insert("neighbor".to_owned(), config.bgp.neighbors.iter().map(neighbor).collect());
        }
    }
    drop_nulls(&mut value);
    value
}

/// A neighbor with the keys that it sets itself.
fn neighbor(neighbor: &Neighbor) -> Map<String, Value> {
    let Neighbor { at, group, limit, keys } = neighbor;
    let (address, interface) = match at.clone() {
        NeighborId::Interface(name) => (None, Some(name)),
        at => (Some(at), None),
    };
    let limit = interface.is_some().then_some(*limit);
    let mut shown = Place { address, interface, limit, group: group.clone() }.show();
    shown.append(&mut keys.shown());
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{
        ParseContext,
        keys::{Key, Shape, Table},
        parse,
        password::HIDDEN,
        reference,
    };

    fn around(kubernetes: bool) -> ParseContext<'static> {
        ParseContext { kubernetes, read_password: &|_| Ok("from a file".into()) }
    }

    fn read(text: &str, kubernetes: bool) -> Config {
        parse(text, &around(kubernetes)).unwrap_or_else(|p| panic!("{p:#?}\n{text}")).0
    }

    /// A file with an arbitrary part of the keys, each with an arbitrary value: one per line.
    struct Draw<'e> {
        entropy: std::iter::Cycle<std::slice::Iter<'e, u32>>,
    }

    impl Draw<'_> {
        fn next(&mut self, below: usize) -> usize {
            self.entropy.next().map_or(0, |n| *n as usize % below.max(1))
        }

        fn file(&mut self) -> String {
            let mut text = String::from(
                "[bgp.group.tor]\nremote-as = 10000\n[[policy.from-leaf]]\naction = \"accept\"\n",
            );
            let own: Vec<Table> = reference::all();
            let (top, tables): (Vec<_>, Vec<_>) = own.into_iter().partition(|t| t.heading.is_empty());
            let top: String = top.iter().map(|table| self.keys(table)).collect();
            for table in tables {
                if self.next(8) == 0 && table.heading != "[bgp]" {
                    continue;
                }
                let heading = table.heading.replace("NAME", "other");
                let required = match table.heading {
                    "[bgp]" => "as = 65010\n",
                    "[[bgp.neighbor]]" => "address = \"10.1.1.1\"\nremote-as = 7\n",
                    "[[bgp.listen-range]]" => "prefix = \"10.2.0.0/24\"\nremote-as = 7\n",
                    "[[policy.NAME]]" => "action = \"accept\"\n",
                    _ => "",
                };
                let keys = self.keys(&table);
                // The heading of [bgp] comes before its groups.
                let at = if table.heading == "[bgp]" { 0 } else { text.len() };
                text.insert_str(at, &format!("{heading}\n{required}{keys}"));
            }
            let group =
                self.keys(&reference::all().into_iter().find(|t| t.heading == "[[bgp.neighbor]]").unwrap());
            format!("{top}{text}[bgp.group.other]\n{group}")
        }

        fn keys(&mut self, table: &Table) -> String {
            let mut lines = String::new();
            for key in &table.keys {
                if self.next(3) == 0
                    && let Some(value) = self.value(key)
                {
                    let _ = writeln!(lines, "{} = {value}", key.name);
                }
            }
            lines
        }

        fn value(&mut self, key: &Key) -> Option<String> {
            if key.name == "password" {
                return Some(format!("\"{HIDDEN}\""));
            }
            let example = key.example().map(str::to_owned);
            match example {
                Some(example) if self.next(3) == 0 => Some(example),
                example => self.shape(&key.shape, key).or(example),
            }
        }

        fn shape(&mut self, shape: &Shape, key: &Key) -> Option<String> {
            Some(match shape {
                Shape::Flag => (self.next(2) == 0).to_string(),
                Shape::Number { min, max } => match self.next(3) {
                    0 => min.to_string(),
                    1 => max.to_string(),
                    _ => (min + self.next(usize::MAX) as u64 % (max - min + 1)).to_string(),
                },
                Shape::Text => match &key.default {
                    Value::String(text) if !text.is_empty() => format!("{text:?}"),
                    _ => return None,
                },
                Shape::Choice(of) => format!("{:?}", of[self.next(of.len())]),
                Shape::List(of) => match self.next(4) {
                    0 => "[]".to_owned(),
                    _ => format!("[{}]", self.shape(of, key)?),
                },
                Shape::Either(shapes) => {
                    let one = self.next(shapes.len());
                    self.shape(&shapes[one], key)?
                }
                Shape::Table(keys) => {
                    let inner: Vec<_> =
                        keys.iter().filter(|_| self.next(2) == 0).map(|key| (key.name, key)).collect();
                    let values: Vec<_> = inner
                        .into_iter()
                        .filter_map(|(name, key)| Some(format!("{name} = {}", self.value(key)?)))
                        .collect();
                    format!("{{ {} }}", values.join(", "))
                }
                Shape::AnyTable => "{ type = \"tuning\", sysctl = { a = \"1\" } }".to_owned(),
            })
        }
    }

    /// Without the lines that are wrong, which exclude one another.
    fn accepted(mut text: String, kubernetes: bool) -> Option<String> {
        for _ in 0..20 {
            let Err(problems) = parse(&text, &around(kubernetes)) else { return Some(text) };
            let wrong: Vec<usize> = problems.iter().map(|p| p.line).collect();
            let lines = text.lines().enumerate().filter(|(n, _)| !wrong.contains(&(n + 1)));
            text = lines.map(|(_, line)| format!("{line}\n")).collect();
        }
        None
    }

    proptest! {
        #[test]
        fn what_is_printed_leads_to_the_same_configuration(
            entropy in proptest::collection::vec(any::<u32>(), 50..400),
            kubernetes: bool,
        ) {
            let text = Draw { entropy: entropy.iter().cycle() }.file();
            let text = accepted(text, kubernetes).expect("something is left");
            let config = read(&text, kubernetes);
            let printed = as_file(&config, None, []);
            prop_assert_eq!(&read(&printed, kubernetes), &config, "{}\nprinted as\n{}", text, printed);
        }
    }

    #[test]
    fn the_file_of_a_bare_host_has_no_keys_that_make_it_another_one() {
        for text in ["", "[log]\nlevel = \"debug\"\n", "[docker]\nnetworks = [\"web\"]\n"] {
            let config = read(text, false);
            assert!(config.is_bare_host);
            assert_eq!(read(&as_file(&config, None, []), false), config, "{text}");
        }
        let config = read("", true);
        assert_eq!(read(&as_file(&config, None, []), true), config);
    }

    #[test]
    fn neighbors_in_force_are_comments() {
        let config = read(
            "[bgp]\nas = \"auto\"\n[[bgp.neighbor]]\naddress = \"gateway\"\nremote-as = 7\npassword = \"x\"\n",
            false,
        );
        let key = "10.0.0.1".parse().expect("a key");
        let peer = PeerConfig::new(key, crate::bgp::peer::RemoteAs::Number(7), 65001);
        let text = as_file(&config, None, [&peer]);
        assert!(
            text.contains("\n# address = \"10.0.0.1\"\n") && text.contains("\naddress = \"gateway\"\n"),
            "{text}"
        );
        assert!(text.contains("as = \"auto\"") && text.contains(HIDDEN), "{text}");
        // The password is hidden, and everything else is the same.
        let mut again = read(&text, false);
        again.bgp.neighbors[0].keys.password = config.bgp.neighbors[0].keys.password.clone();
        assert_eq!(again, config);
    }
}
