//! Reads the part of PromQL that the rules and the dashboard of deploy/ use: syntax, the types of
//! arguments, and which metrics and labels a query names.

/// What a query names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) selectors: Vec<Selector>,
    /// Labels of `by`, `on` and `group_left`.
    pub(super) grouped: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) metric: String,
    /// Label, operator, value.
    pub(super) matchers: Vec<(String, String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Vector,
    Range,
}

/// Functions with the types of their arguments.
const FUNCTIONS: [(&str, &[Kind]); 7] = [
    ("histogram_quantile", &[Kind::Number, Kind::Vector]),
    ("increase", &[Kind::Range]),
    ("label_values", &[Kind::Vector]),
    ("max_over_time", &[Kind::Range]),
    ("rate", &[Kind::Range]),
    ("time", &[]),
    ("vector", &[Kind::Number]),
];
const AGGREGATIONS: [&str; 4] = ["count", "max", "min", "sum"];
/// The longest first.
const OPERATORS: [&str; 12] = ["==", "!=", ">=", "<=", "and", "unless", "or", ">", "<", "+", "-", "/"];

/// Reads a whole query.
///
/// # Errors
///
/// What is wrong, and what follows there.
pub(super) fn read(text: &str) -> Result<Query, String> {
    let mut reader = Reader { rest: text, query: Query::default() };
    match reader.expression()? {
        Kind::Range => Err(format!("a range is no result: {text}")),
        _ if !reader.rest.trim().is_empty() => Err(format!("not understood: {}", reader.rest)),
        _ => Ok(reader.query),
    }
}

struct Reader<'t> {
    rest: &'t str,
    query: Query,
}

impl Reader<'_> {
    fn expression(&mut self) -> Result<Kind, String> {
        let mut kind = self.operand()?;
        while let Some(operator) = self.operator() {
            for word in ["on", "ignoring", "group_left", "group_right"] {
                if self.word(word) {
                    self.labels()?;
                }
            }
            let right = self.operand()?;
            let is_set = ["and", "or", "unless"].contains(&operator);
            kind = match (kind, right) {
                (Kind::Range, _) | (_, Kind::Range) => return Err(format!("{operator} of a range")),
                (Kind::Vector, Kind::Vector) => Kind::Vector,
                _ if is_set => return Err(format!("{operator} of a number")),
                (Kind::Number, Kind::Number) => Kind::Number,
                _ => Kind::Vector,
            };
        }
        Ok(kind)
    }

    fn operand(&mut self) -> Result<Kind, String> {
        let kind = self.simple()?;
        if !self.sign("[") {
            return Ok(kind);
        }
        let (range, rest) = self.rest.split_once(']').ok_or("a range without its end")?;
        self.rest = rest;
        let is_time = range.len() > 1
            && range.ends_with(['s', 'm', 'h', 'd'])
            && range[..range.len() - 1].chars().all(|c| c.is_ascii_digit());
        match (kind, is_time) {
            (Kind::Vector, true) => Ok(Kind::Range),
            _ => Err(format!("[{range}] of no vector, or no time")),
        }
    }

    fn simple(&mut self) -> Result<Kind, String> {
        if self.sign("(") {
            let kind = self.expression()?;
            return self.expect(")").map(|()| kind);
        }
        let number = self.take(|c| c.is_ascii_digit() || c == '.');
        if !number.is_empty() {
            return number.parse::<f64>().map(|_| Kind::Number).map_err(|e| format!("{number}: {e}"));
        }
        let name = self.name()?;
        if AGGREGATIONS.contains(&&*name) {
            return self.aggregation();
        }
        match FUNCTIONS.iter().find(|(function, _)| *function == name) {
            Some((_, kinds)) => self.call(&name, kinds),
            None => self.selector(name),
        }
    }

    fn aggregation(&mut self) -> Result<Kind, String> {
        if self.word("by") {
            self.labels()?;
        }
        self.expect("(")?;
        let kind = self.expression()?;
        self.expect(")")?;
        if kind == Kind::Vector { Ok(kind) } else { Err(format!("an aggregation of a {kind:?}")) }
    }

    fn call(&mut self, name: &str, kinds: &[Kind]) -> Result<Kind, String> {
        self.expect("(")?;
        for (n, wanted) in kinds.iter().enumerate() {
            if n > 0 {
                self.expect(",")?;
            }
            let kind = self.expression()?;
            if kind != *wanted {
                return Err(format!("{name} of a {kind:?}"));
            }
        }
        // Grafana's own function has a label as its second argument.
        if name == "label_values" {
            self.expect(",")?;
            let label = self.name()?;
            self.query.grouped.push(label);
        }
        self.expect(")")?;
        Ok(if name == "time" { Kind::Number } else { Kind::Vector })
    }

    fn selector(&mut self, metric: String) -> Result<Kind, String> {
        let mut matchers = Vec::new();
        if self.sign("{") {
            while !self.sign("}") {
                let label = self.name()?;
                let operators = ["=~", "!~", "!=", "="];
                let operator =
                    operators.into_iter().find(|o| self.sign(o)).ok_or("a matcher has no operator")?;
                self.expect("\"")?;
                let (value, rest) = self.rest.split_once('"').ok_or("a string without its end")?;
                matchers.push((label, operator.to_owned(), value.to_owned()));
                self.rest = rest;
                self.sign(",");
            }
        }
        self.query.selectors.push(Selector { metric, matchers });
        Ok(Kind::Vector)
    }

    fn labels(&mut self) -> Result<(), String> {
        self.expect("(")?;
        while !self.sign(")") {
            let label = self.name()?;
            self.query.grouped.push(label);
            self.sign(",");
        }
        Ok(())
    }

    fn operator(&mut self) -> Option<&'static str> {
        OPERATORS
            .into_iter()
            .find(|o| if o.starts_with(char::is_alphabetic) { self.word(o) } else { self.sign(o) })
    }

    fn name(&mut self) -> Result<String, String> {
        let name = self.take(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
        match name.is_empty() {
            true => Err(format!("a name is missing before: {}", self.rest)),
            false => Ok(name),
        }
    }

    fn take(&mut self, fits: impl Fn(char) -> bool) -> String {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken.to_owned()
    }

    fn word(&mut self, word: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(word);
        let ends = |rest: &&str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        rest.filter(ends).map(|rest| self.rest = rest).is_some()
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.rest.trim_start().strip_prefix(sign).map(|rest| self.rest = rest).is_some()
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.sign(sign) { Ok(()) } else { Err(format!("{sign} is missing before: {}", self.rest)) }
    }
}

#[test]
fn queries_are_read_and_mistakes_are_found() {
    let query = read("sum by (a, b) (rate(x_total{c=\"d\",e!~\"f|g\"}[5m])) > 0 and on (a) y == 1").unwrap();
    assert_eq!(query.grouped, ["a", "b", "a"]);
    assert_eq!(query.selectors.len(), 2);
    assert_eq!(query.selectors[0].matchers[1], ("e".into(), "!~".into(), "f|g".into()));
    for wrong in [
        "rate(x)",
        "x[5m]",
        "sum(x",
        "x{a=b}",
        "x y",
        "x[5]",
        "sum(rate(x[5m]) by (a))",
        "x and 1",
        "unknown_function(x)",
        "",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
