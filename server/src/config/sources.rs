//! Reads the layers: the TOML file and the environment.

use std::path::Path;

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};

use super::error::{ConfigError, Problem};
use super::section::{Key, Kind};
use super::{Config, SECTIONS, find_key};

/// Every environment variable with this beginning is part of the configuration.
pub const ENV_PREFIX: &str = "ALTHING__";

/// Reads `file` and `variables` over the defaults. The figment knows where each value came from.
pub(super) fn read(
    file: &Path,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(Config, Figment), ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        ConfigError::in_source(file.display().to_string(), format!("cannot be read: {error}"))
    })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        ConfigError::in_source(file.display().to_string(), format!("is not TOML: {}", on_line(&text, &error)))
    })?;
    let variables = Variables::from(variables);

    let mut problems = unknown_in_file(file, &table);
    problems.extend(variables.unknown());
    if !problems.is_empty() {
        return Err(ConfigError::new(problems));
    }

    let figment =
        Figment::from(Serialized::defaults(Config::default())).merge(Toml::file_exact(file)).merge(variables);
    match figment.extract::<Config>() {
        Ok(config) => Ok((config, figment)),
        Err(errors) => Err(ConfigError::new(errors.into_iter().map(|error| problem(&error)).collect())),
    }
}

/// The file or variable that `section.key` was set in.
pub(super) fn origin(figment: &Figment, key: &str) -> String {
    let path: Vec<String> = key.split('.').map(str::to_owned).collect();
    figment.find_metadata(key).map_or_else(|| "built-in default".to_owned(), |from| describe(from, &path))
}

fn describe(metadata: &Metadata, path: &[String]) -> String {
    match &metadata.source {
        Some(Source::File(file)) => file.display().to_string(),
        Some(Source::Custom(_)) => match path {
            [section, key, ..] => format!("environment variable {}", variable(section, key)),
            _ => "environment".to_owned(),
        },
        _ => "built-in default".to_owned(),
    }
}

fn variable(section: &str, key: &str) -> String {
    format!("{ENV_PREFIX}{}__{}", section.to_uppercase(), key.to_uppercase())
}

/// `toml`'s errors carry a span; an operator wants the line.
fn on_line(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let line = text.get(..start).map_or(1, |before| before.matches('\n').count() + 1);
    format!("line {line}: {}", error.message())
}

fn problem(error: &figment::Error) -> Problem {
    let source =
        error.metadata.as_ref().map_or_else(|| "configuration".to_owned(), |m| describe(m, &error.path));
    let key = match error.path.as_slice() {
        [section, key, ..] => find_key(section, key),
        _ => None,
    };
    Problem {
        source,
        key: error.path.join("."),
        what: error.kind.to_string(),
        allowed: key.map(Key::allowed).unwrap_or_default(),
    }
}

fn unknown_in_file(file: &Path, table: &toml::Table) -> Vec<Problem> {
    let source = file.display().to_string();
    let mut problems = Vec::new();
    for (section, value) in table {
        let Some(table) = value.as_table() else {
            problems.extend(unknown(&source, section, None).or_else(|| {
                Some(Problem {
                    source: source.clone(),
                    key: section.clone(),
                    what: "is a section, not a key".to_owned(),
                    allowed: format!("[{section}] and below it its keys"),
                })
            }));
            continue;
        };
        match unknown(&source, section, None) {
            Some(problem) => problems.push(problem),
            None => problems.extend(table.keys().filter_map(|key| unknown(&source, section, Some(key)))),
        }
    }
    problems
}

/// The problem of a section or key that does not exist.
fn unknown(source: &str, section: &str, key: Option<&str>) -> Option<Problem> {
    let names = |list: Vec<&str>| list.join(", ");
    let (key, what, allowed) = match (SECTIONS.iter().find(|info| info.name == section), key) {
        (None, _) => {
            (section.to_owned(), "unknown section", names(SECTIONS.iter().map(|info| info.name).collect()))
        }
        (Some(info), Some(key)) if find_key(section, key).is_none() => {
            (format!("{section}.{key}"), "unknown key", names(info.keys.iter().map(|key| key.name).collect()))
        }
        _ => return None,
    };
    Some(Problem { source: source.to_owned(), key, what: what.to_owned(), allowed })
}

/// The variables `ALTHING__SECTION__KEY`, read by the kind of their key.
///
/// figment's own provider guesses types from the text, so that a node named `7` or a TLS version of
/// `1.2` would have to be quoted twice.
struct Variables(Vec<(String, String, String)>);

impl Variables {
    fn from(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let split = |(name, value): (String, String)| {
            let rest = name.strip_prefix(ENV_PREFIX)?.to_lowercase();
            let (section, key) = rest.split_once("__").unwrap_or((&rest, ""));
            Some((section.to_owned(), key.to_owned(), value))
        };
        Variables(variables.into_iter().filter_map(split).collect())
    }

    fn unknown(&self) -> Vec<Problem> {
        self.0
            .iter()
            .filter_map(|(section, key, _)| {
                unknown(&format!("environment variable {}", variable(section, key)), section, Some(key))
            })
            .collect()
    }
}

impl Provider for Variables {
    fn metadata(&self) -> Metadata {
        Metadata::from("environment", Source::Custom(ENV_PREFIX.to_owned()))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut sections = Dict::new();
        for (section, key, text) in &self.0 {
            let kind = find_key(section, key).map_or(Kind::Text, |key| key.kind);
            let entry = sections.entry(section.clone()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, keys) = entry {
                keys.insert(key.clone(), value(kind, text));
            }
        }
        Ok(Map::from([(Profile::Default, sections)]))
    }
}

/// A variable's text as a value; what does not fit stays text, and figment then says what is wrong.
fn value(kind: Kind, text: &str) -> Value {
    if kind.is_list() {
        return list(text);
    }
    match kind {
        Kind::Flag => text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from),
        Kind::Tables(_) => tables(text).unwrap_or_else(|| Value::from(text)),
        Kind::Number => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
        _ => Value::from(text),
    }
}

/// A TOML list of tables.
fn tables(text: &str) -> Option<Value> {
    let mut table: toml::Table = format!("items = {text}").parse().ok()?;
    Value::serialize(table.remove("items")?).ok()
}

/// A TOML list, or texts separated by commas; nothing at all is the empty list.
fn list(text: &str) -> Value {
    #[derive(serde::Deserialize)]
    struct List {
        items: Vec<String>,
    }
    let items = match toml::from_str::<List>(&format!("items = {text}")) {
        Ok(list) => list.items,
        Err(_) => text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
    };
    Value::from(items)
}
