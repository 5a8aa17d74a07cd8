//! The reference page and the example file, made from the sections' definitions.

use std::fmt::Write as _;

use super::section::Key;
use super::sources::ENV_PREFIX;
use super::{Config, SECTIONS, SectionInfo, needs_restart};

/// The text of `deploy/reference/config.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = format!(
        "# Configuration\n\n\
         Made by `althing reference config`; do not edit.\n\n\
         One TOML file (`althing run --config FILE`); relative paths in it count from its directory. Every key can\n\
         be set by an environment variable, which wins over the file: `{ENV_PREFIX}SECTION__KEY`, a list as TOML or\n\
         with commas between its items. Secrets stand in files, and keys name these files. An unknown key is an error.\n\
         `althing check-config --config FILE` says what is wrong with a file.\n\n\
         A node reads it again at SIGHUP or `althing reload`, certificates too. Keys with a * are read at the start only.\n"
    );
    for section in SECTIONS {
        let _ = write!(out, "\n## `[{}]`\n\n{}\n\n", section.name, joined(section.about));
        out.push_str("| key | allowed | default | meaning |\n|---|---|---|---|\n");
        for key in section.keys {
            let default = default_of(section, key).map_or("not set".to_owned(), |text| format!("`{text}`"));
            let allowed = key.allowed();
            let star = if needs_restart(section.name, key.name) { " *" } else { "" };
            let _ = writeln!(out, "| `{}`{star} | {allowed} | {default} | {} |", key.name, joined(key.text));
        }
    }
    out
}

/// The text of `deploy/config/single.toml`: every key with its default, or an example where it has none.
#[must_use]
pub fn example() -> String {
    let mut out = "# Althing on one node: every key with its default. Made by `althing reference single`.\n\
         # What differs from a default stays in your file, the rest can go.\n"
        .to_owned();
    for section in SECTIONS {
        let _ = write!(out, "\n{}[{}]\n", comment(section.about), section.name);
        for key in section.keys {
            let default = default_of(section, key);
            let _ = writeln!(out, "\n{}# Allowed: {}.", comment(key.text), key.allowed());
            match (default, key.example.first()) {
                (Some(value), _) => writeln!(out, "{} = {value}", key.name),
                (None, Some(value)) => writeln!(out, "# Not set by default.\n{} = {value}", key.name),
                (None, None) => {
                    let like = key.like.first().unwrap_or(&"");
                    writeln!(out, "# Not set by default.\n# {} = {like}", key.name)
                }
            }
            .unwrap_or_default();
        }
    }
    out
}

/// The text of `deploy/config/cluster.toml`: what the first of three nodes says beyond the defaults.
#[must_use]
pub fn cluster_example() -> String {
    "# Althing as a cluster: the file of althing-0. Made by `althing reference cluster`.\n\
     # The others differ in node.name and in cluster.certificate and cluster.key. Every other key is in single.toml.\n\
     # `althing cert cluster --dir DIR --name althing-0 althing-1 althing-2` makes the files of [cluster].\n\
     \n\
     [node]\n\
     name = \"althing-0\"\n\
     \n\
     [xmpp]\n\
     domains = [\"example.org\"]\n\
     \n\
     [tls]\n\
     certificate = \"/etc/althing/tls/tls.crt\"\n\
     key = \"/etc/althing/tls/tls.key\"\n\
     \n\
     [cluster]\n\
     enabled = true\n\
     # The same on all nodes, for ever. A node that is added later stands not here; it sets `advertise`.\n\
     initial = [\n    \
         \"althing-0=althing-0.althing.internal:5275\",\n    \
         \"althing-1=althing-1.althing.internal:5275\",\n    \
         \"althing-2=althing-2.althing.internal:5275\",\n\
     ]\n\
     ca = \"/etc/althing/cluster/ca.pem\"\n\
     certificate = \"/etc/althing/cluster/althing-0.pem\"\n\
     key = \"/etc/althing/cluster/althing-0.key\"\n"
        .to_owned()
}

/// The default as TOML; none for a key that is not set.
fn default_of(section: &SectionInfo, key: &Key) -> Option<String> {
    let defaults = toml::Table::try_from(Config::default()).ok()?;
    defaults.get(section.name)?.get(key.name).map(toml::Value::to_string)
}

fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

fn comment(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("# {}\n", line.trim())).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn deployed(path: &str) -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path);
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    #[test]
    fn reference_page_is_up_to_date() {
        assert_eq!(deployed("reference/config.md"), markdown(), "run `make fix`");
    }

    #[test]
    fn example_file_is_up_to_date() {
        assert_eq!(deployed("config/single.toml"), example(), "run `make fix`");
    }

    #[test]
    fn the_example_of_a_cluster_is_up_to_date_and_loads() {
        assert_eq!(deployed("config/cluster.toml"), cluster_example(), "run `make fix`");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/cluster.toml");
        let config = Config::load_with(&file, []).unwrap();
        assert_eq!(config.cluster.initial_set().len(), 3);
        assert_eq!(config.cluster.advertised("althing-0").unwrap(), "althing-0.althing.internal:5275");
    }

    #[test]
    fn example_file_loads_and_means_the_defaults() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/single.toml");
        let mut config = Config::load_with(&file, []).unwrap();
        assert_eq!(config.tls.certificate.take().unwrap(), Path::new("/etc/althing/tls/tls.crt"));
        assert_eq!(config.tls.key.take().unwrap(), Path::new("/etc/althing/tls/tls.key"));
        assert_eq!(config, Config::default());
    }

    #[test]
    fn every_key_is_explained() {
        for section in SECTIONS {
            for key in section.keys {
                assert!(joined(key.text).len() > 10, "{}.{}", section.name, key.name);
                let shown = [format!("\n{} = ", key.name), format!("\n# {} = \"", key.name)];
                assert!(shown.iter().any(|line| example().contains(line)), "{}.{}", section.name, key.name);
            }
        }
    }
}
