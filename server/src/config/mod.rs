//! The configuration: one struct a section, defaults written out.
//!
//! Three layers, the later wins: built-in defaults, one TOML file, environment variables
//! `ALTHING__SECTION__KEY`. Every key, its default and its text stand in one place, the sections'
//! definitions; [`reference`] makes the reference page and the example file from them.

mod access;
mod change;
mod cluster;
mod components;
mod contact;
mod error;
mod hidden;
mod limits;
mod listen;
mod messages;
mod node;
pub mod reference;
pub mod section;
mod services;
mod sources;
mod validate;
mod web;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

pub use access::{Auth, MECHANISMS, Registration, Search};
pub use change::{Change, needs_restart};
pub use cluster::{Cluster, InitialNode, is_cluster_name};
pub use components::{Components, External, LEAST_SECRET};
pub use contact::Contact;
pub use error::{ConfigError, Problem};
pub use hidden::Hidden;
pub use limits::Limits;
pub use listen::{Http, Listen, Tls, TlsVersion};
pub use messages::{Archive, ArchiveWhat, Durability, HostMessages, Messages, Offline, Push, Receipts};
pub use node::{Backend, Log, LogFormat, Node, Runtime, Storage, Xmpp};
pub use services::{ExternalService, Services};
pub use sources::ENV_PREFIX;
pub use validate::Finding;
pub use web::Web;

use section::{Key, Section};

/// The whole configuration of one node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Section `[node]`.
    pub node: Node,
    /// Section `[xmpp]`.
    pub xmpp: Xmpp,
    /// Section `[contact]`.
    pub contact: Contact,
    /// Section `[listen]`.
    pub listen: Listen,
    /// Section `[tls]`.
    pub tls: Tls,
    /// Section `[web]`.
    pub web: Web,
    /// Section `[cluster]`.
    pub cluster: Cluster,
    /// Section `[components]`.
    pub components: Components,
    /// Section `[services]`.
    pub services: Services,
    /// Section `[auth]`.
    pub auth: Auth,
    /// Section `[registration]`.
    pub registration: Registration,
    /// Section `[search]`.
    pub search: Search,
    /// Section `[messages]`.
    pub messages: Messages,
    /// Section `[archive]`.
    pub archive: Archive,
    /// Section `[offline]`.
    pub offline: Offline,
    /// Section `[receipts]`.
    pub receipts: Receipts,
    /// Section `[push]`.
    pub push: Push,
    /// Section `[limits]`.
    pub limits: Limits,
    /// Section `[storage]`.
    pub storage: Storage,
    /// Section `[log]`.
    pub log: Log,
    /// Section `[http]`.
    pub http: Http,
    /// Section `[runtime]`.
    pub runtime: Runtime,
}

/// What is known of a section: name, text, keys.
#[derive(Debug, Clone, Copy)]
pub struct SectionInfo {
    /// The section's name between brackets.
    pub name: &'static str,
    /// Its doc comment, a line an entry.
    pub about: &'static [&'static str],
    /// Its keys.
    pub keys: &'static [Key],
}

const fn info<S: Section>() -> SectionInfo {
    SectionInfo { name: S::NAME, about: S::ABOUT, keys: S::KEYS }
}

/// All sections, in the order of the reference.
pub const SECTIONS: &[SectionInfo] = &[
    info::<Node>(),
    info::<Xmpp>(),
    info::<Contact>(),
    info::<Listen>(),
    info::<Tls>(),
    info::<Web>(),
    info::<Cluster>(),
    info::<Components>(),
    info::<Services>(),
    info::<Auth>(),
    info::<Registration>(),
    info::<Search>(),
    info::<Messages>(),
    info::<Archive>(),
    info::<Offline>(),
    info::<Receipts>(),
    info::<Push>(),
    info::<Limits>(),
    info::<Storage>(),
    info::<Log>(),
    info::<Http>(),
    info::<Runtime>(),
];

/// The key `section.name`, if there is one.
fn find_key(section: &str, name: &str) -> Option<&'static Key> {
    SECTIONS.iter().find(|info| info.name == section)?.keys.iter().find(|key| key.name == name)
}

impl Config {
    /// Reads `file`, lays the environment of this process over it and checks the result.
    ///
    /// Relative paths in it count from the directory of `file`.
    ///
    /// # Errors
    ///
    /// Every problem found, each with the file or variable it stands in, the key, and what is allowed.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        Config::load_with(file, variables)
    }

    /// `node.data_dir` alone: to find a running node, whose file may have become wrong in other places.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is no TOML.
    pub fn data_dir(file: &Path) -> anyhow::Result<PathBuf> {
        let base = file.parent().unwrap_or(Path::new(""));
        if let Some(dir) = std::env::var_os(format!("{ENV_PREFIX}NODE__DATA_DIR")) {
            return Ok(base.join(dir));
        }
        let place = || file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(place)?;
        let table: toml::Table = text.parse().with_context(place)?;
        let dir = table.get("node").and_then(|node| node.get("data_dir")).and_then(toml::Value::as_str);
        Ok(base.join(dir.map_or_else(|| Node::default().data_dir, PathBuf::from)))
    }

    /// As [`Config::load`], with the environment handed in.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn load_with(
        file: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let (mut config, origins) = sources::read(file, variables)?;
        let problems: Vec<Problem> = config
            .validate()
            .into_iter()
            .map(|finding| {
                let origin = sources::origin(&origins, &finding.key);
                finding.into_problem(&origin)
            })
            .collect();
        if !problems.is_empty() {
            return Err(ConfigError::new(problems));
        }
        config.resolve_paths(file.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    fn resolve_paths(&mut self, base: &Path) {
        self.node.data_dir = base.join(&self.node.data_dir);
        let (tls, cluster) = (&mut self.tls, &mut self.cluster);
        let paths =
            [&mut tls.certificate, &mut tls.key, &mut cluster.ca, &mut cluster.certificate, &mut cluster.key];
        let secrets = self.components.external.iter_mut().map(|component| &mut component.secret_file);
        let services = self.services.external.iter_mut();
        let of_services = services.flat_map(|service| [&mut service.secret_file, &mut service.password_file]);
        for path in paths.into_iter().chain(secrets).chain(of_services).flatten() {
            *path = base.join(&*path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("althing.toml");
        std::fs::write(&file, text).unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load_with(&file, variables)
            .map_err(|error| error.to_string().replace(&*dir.path().to_string_lossy(), "DIR"))
    }

    const TLS: &str = "[tls]\ncertificate = \"c.pem\"\nkey = \"/k.pem\"\n";

    #[test]
    fn defaults_stand_where_the_file_is_silent() {
        let config = load(TLS, &[]).unwrap();
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.xmpp.domains, ["localhost"]);
    }

    #[test]
    fn relative_paths_count_from_the_file() {
        let config = load(TLS, &[]).unwrap();
        assert!(config.tls.certificate.unwrap().is_absolute());
        assert_eq!(config.tls.key.unwrap(), Path::new("/k.pem"));
    }

    #[test]
    fn the_data_directory_is_found_in_a_file_that_is_wrong_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("althing.toml");
        for (text, expected) in [
            ("[node]\ndata_dir = \"data\"\n[limits]\ndepth = \"x\"\n", dir.path().join("data")),
            ("[nose]\n", Node::default().data_dir),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(Config::data_dir(&file).unwrap(), expected);
        }
        std::fs::write(&file, "[node").unwrap();
        assert!(Config::data_dir(&file).is_err());
    }

    #[test]
    fn environment_wins_over_the_file() {
        let text = format!("{TLS}min_version = \"1.3\"\n[limits]\ndepth = 32\n");
        let config = load(
            &text,
            &[
                ("ALTHING__LIMITS__DEPTH", "16"),
                ("ALTHING__TLS__MIN_VERSION", "1.2"),
                ("ALTHING__NODE__NAME", "7"),
                ("ALTHING__XMPP__DOMAINS", "a.example, b.example"),
                ("ALTHING__LISTEN__C2S", "[\"127.0.0.1:1\"]"),
                ("ALTHING__REGISTRATION__ENABLED", "true"),
                ("UNRELATED", "x"),
            ],
        )
        .unwrap();
        assert_eq!(config.limits.depth, 16);
        assert_eq!(config.tls.min_version, TlsVersion::V1_2);
        assert_eq!(config.node.name, "7");
        assert_eq!(config.xmpp.domains, ["a.example", "b.example"]);
        assert_eq!(config.listen.c2s, ["127.0.0.1:1".parse().unwrap()]);
        assert!(config.registration.enabled);
    }

    #[test]
    fn empty_listeners_are_possible() {
        let config = load("[listen]\nc2s = []\nc2s_tls = []\n", &[("ALTHING__LISTEN__C2S_TLS", "")]).unwrap();
        assert!(config.listen.c2s.is_empty() && config.listen.c2s_tls.is_empty());
    }

    #[test]
    fn unknown_keys_are_named_with_those_that_exist() {
        let error = load("[log]\nfilters = \"info\"\n[nose]\nx = 1\n", &[("ALTHING__LOG__LEVEL", "info")])
            .unwrap_err();
        assert!(
            error.contains("DIR/althing.toml: log.filters: unknown key\n    allowed: filter, format"),
            "{error}"
        );
        assert!(
            error.contains("DIR/althing.toml: nose: unknown section\n    allowed: node, xmpp,"),
            "{error}"
        );
        assert!(
            error.contains("environment variable ALTHING__LOG__LEVEL: log.level: unknown key"),
            "{error}"
        );
    }

    #[test]
    fn wrong_types_name_source_key_and_what_is_allowed() {
        let error = load("[limits]\ndepth = \"deep\"\n", &[]).unwrap_err();
        assert!(error.contains("DIR/althing.toml: limits.depth: "), "{error}");
        assert!(error.contains("allowed: whole number from 8 to 1024"), "{error}");
        let error = load("", &[("ALTHING__TLS__MIN_VERSION", "1.1")]).unwrap_err();
        assert!(
            error.contains("environment variable ALTHING__TLS__MIN_VERSION: tls.min_version: "),
            "{error}"
        );
        assert!(error.contains("allowed: \"1.2\" or \"1.3\""), "{error}");
        let error = load("[listen]\nhttp = \"here\"\n", &[]).unwrap_err();
        assert!(error.contains("listen.http") && error.contains("allowed: address:port"), "{error}");
    }

    #[test]
    fn broken_toml_names_file_and_line() {
        let error = load("[log]\nfilter = \n", &[]).unwrap_err();
        assert!(error.contains("DIR/althing.toml") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load_with(Path::new("/nowhere/althing.toml"), []).unwrap_err();
        assert!(error.to_string().contains("/nowhere/althing.toml"), "{error}");
    }

    #[test]
    fn sections_and_structs_agree() {
        let toml::Value::Table(written) = toml::Value::try_from(Config::default()).unwrap() else {
            panic!("a config is a table");
        };
        assert_eq!(written.len(), SECTIONS.len());
        for section in SECTIONS {
            let keys = written[section.name].as_table().unwrap();
            assert!(keys.keys().all(|key| find_key(section.name, key).is_some()));
        }
    }
}
