//! Where settings come from, and in which order.

use std::collections::HashMap;
use std::path::Path;

use super::SettingInfo;
use super::value::Setting;

/// A setting that cannot be used: one line that names it and tells the cure.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {problem}; {cure}")]
pub struct ConfigError {
    setting: String,
    problem: String,
    cure: String,
}

impl ConfigError {
    /// An error of the setting `setting`.
    pub fn new(setting: impl Into<String>, problem: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            setting: setting.into(),
            problem: problem.into(),
            cure: cure.into(),
        }
    }
}

/// The layers of settings, the strongest first.
#[derive(Debug, Default)]
pub struct Source {
    layers: Vec<HashMap<String, String>>,
    /// The names of the TOML file, which are checked for spelling.
    file_names: Vec<String>,
}

impl Source {
    /// Flags over the environment (with `.env`) over the TOML file.
    pub fn load(
        flags: impl IntoIterator<Item = (&'static str, String)>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        match dotenvy::dotenv() {
            Ok(_) => {}
            Err(error) if error.not_found() => {}
            Err(error) => {
                return Err(ConfigError::new(
                    ".env",
                    error.to_string(),
                    "write lines of the form NAME=value",
                ));
            }
        }
        let mut source = Self::from_pairs(flags);
        source.layers.push(
            std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        );
        if let Some(path) = file {
            let layer = read_toml(path)?;
            source.file_names = layer.keys().cloned().collect();
            source.layers.push(layer);
        }
        Ok(source)
    }

    /// One layer of given values: for tests and for roles that start other roles.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let layer = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self {
            layers: vec![layer],
            file_names: Vec::new(),
        }
    }

    /// The same source under a stronger layer of values.
    #[must_use]
    pub fn with<K: Into<String>, V: Into<String>>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        self.layers.insert(
            0,
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        );
        self
    }

    /// The text of a setting, if any layer has it.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.layers.iter().find_map(|layer| layer.get(name)).map(String::as_str)
    }

    /// Reads one setting, `<NAME>_FILE` included for secrets.
    pub fn setting<T: Setting>(&self, name: &'static str, default: Option<&str>) -> Result<T, ConfigError> {
        let from_file = if T::SECRET && self.text(name).is_none() {
            self.secret_file(name)?
        } else {
            None
        };
        let Some(text) = from_file.as_deref().or_else(|| self.text(name)).or(default) else {
            return T::absent().ok_or_else(|| {
                ConfigError::new(
                    name,
                    "is required and not set",
                    "set it in the environment, in .env or in the file given by --config",
                )
            });
        };
        T::parse(text).map_err(|cure| {
            let problem = if T::SECRET {
                "has a bad value".to_owned()
            } else {
                format!("has the bad value `{text}`")
            };
            ConfigError::new(name, problem, cure)
        })
    }

    /// Refuses names in the TOML file that no setting has: a typing error there would go unnoticed.
    pub fn refuse_unknown(&self, known: &[SettingInfo]) -> Result<(), ConfigError> {
        let known = |name: &str| {
            known
                .iter()
                .any(|info| info.name == name || (info.secret && name.strip_suffix("_FILE") == Some(info.name)))
        };
        match self.file_names.iter().find(|name| !known(name)) {
            Some(name) => Err(ConfigError::new(
                name.clone(),
                "is no setting",
                "see `roomcast config` for the names",
            )),
            None => Ok(()),
        }
    }

    fn secret_file(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let name = format!("{name}_FILE");
        let Some(path) = self.text(&name) else { return Ok(None) };
        std::fs::read_to_string(path)
            .map(Some)
            .map_err(|error| ConfigError::new(name, format!("cannot read `{path}`: {error}"), "name a readable file"))
    }
}

fn read_toml(path: &Path) -> Result<HashMap<String, String>, ConfigError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        ConfigError::new(
            "--config",
            format!("cannot read `{shown}`: {error}"),
            "name a readable TOML file",
        )
    })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        ConfigError::new(
            "--config",
            format!("`{shown}` is no TOML: {}", error.message()),
            "write lines of the form name = \"value\"",
        )
    })?;
    table
        .into_iter()
        .map(|(name, value)| {
            let name = name.to_ascii_uppercase();
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                toml::Value::Array(items) if items.iter().all(toml::Value::is_str) => items
                    .iter()
                    .filter_map(toml::Value::as_str)
                    .collect::<Vec<_>>()
                    .join(","),
                _ => {
                    return Err(ConfigError::new(
                        name,
                        format!("has no usable value in `{shown}`"),
                        "use a string, a number, true/false or a list of strings",
                    ));
                }
            };
            Ok((name, text))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_weaker_than_given_values_and_its_names_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roomcast.toml");
        std::fs::write(
            &path,
            "redis_url = \"redis://file\"\ntrusted_proxies = [\"10.0.0.0/8\", \"fd00::/8\"]\n",
        )
        .unwrap();
        let source = Source::load([("REDIS_URL", "redis://flag".to_owned())], Some(&path)).unwrap();
        assert_eq!(source.text("REDIS_URL"), Some("redis://flag"));
        assert_eq!(source.text("TRUSTED_PROXIES"), Some("10.0.0.0/8,fd00::/8"));

        std::fs::write(&path, "redis_ulr = \"x\"\n").unwrap();
        let source = Source::load([], Some(&path)).unwrap();
        let error = source
            .refuse_unknown(super::super::Config::SETTINGS)
            .unwrap_err()
            .to_string();
        assert!(error.contains("REDIS_ULR"), "{error}");
    }

    #[test]
    fn a_secret_may_live_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "from-file\n").unwrap();
        let source = Source::from_pairs([("JWT_SECRET_FILE", path.to_str().unwrap())]);
        let secret: super::super::Secret = source.setting("JWT_SECRET", None).unwrap();
        assert_eq!(secret.expose(), "from-file");
    }
}
