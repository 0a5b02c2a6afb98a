//! The settings that are about Redis: all that a command for operators needs.

use std::time::Duration;

use super::value::Setting;
use super::{Config, ConfigError, Durability, Millis, Secret, Source};

/// Below it a busy server looks dead; zero would mean that no call ever ends.
const TIMEOUT_MIN: Duration = Duration::from_millis(50);

/// How to reach Redis, and how its keys are laid out.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `REDIS_URL`.
    pub url: Secret,
    /// `REDIS_TLS_CA_FILE`.
    pub tls_ca_file: Option<String>,
    /// `REDIS_TLS_CERT_FILE`.
    pub tls_cert_file: Option<String>,
    /// `REDIS_TLS_KEY_FILE`.
    pub tls_key_file: Option<String>,
    /// `REDIS_TIMEOUT`.
    pub timeout: Millis,
    /// `ROOMCAST_DURABILITY`.
    pub durability: Durability,
    /// `ROOMCAST_DURABILITY_REPLICAS`.
    pub durability_replicas: u32,
    /// `ROOMCAST_PARTITIONS`.
    pub partitions: u16,
}

impl From<&Config> for RedisConfig {
    fn from(config: &Config) -> Self {
        Self {
            url: config.redis_url.clone(),
            tls_ca_file: config.redis_tls_ca_file.clone(),
            tls_cert_file: config.redis_tls_cert_file.clone(),
            tls_key_file: config.redis_tls_key_file.clone(),
            timeout: config.redis_timeout,
            durability: config.durability,
            durability_replicas: config.durability_replicas,
            partitions: config.partitions,
        }
    }
}

impl RedisConfig {
    /// Reads these settings alone, with the defaults of [`Config`]; the first bad value is the error.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        source.refuse_unknown(Config::SETTINGS)?;
        let config = Self {
            url: declared(source, "REDIS_URL")?,
            tls_ca_file: declared(source, "REDIS_TLS_CA_FILE")?,
            tls_cert_file: declared(source, "REDIS_TLS_CERT_FILE")?,
            tls_key_file: declared(source, "REDIS_TLS_KEY_FILE")?,
            timeout: declared(source, "REDIS_TIMEOUT")?,
            durability: declared(source, "ROOMCAST_DURABILITY")?,
            durability_replicas: declared(source, "ROOMCAST_DURABILITY_REPLICAS")?,
            partitions: declared(source, "ROOMCAST_PARTITIONS")?,
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks what one setting alone cannot tell.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.partitions == 0 || self.partitions > 4096 {
            return Err(ConfigError::new(
                "ROOMCAST_PARTITIONS",
                "is out of range",
                "choose a number from 1 to 4096",
            ));
        }
        if self.durability_replicas == 0 {
            return Err(ConfigError::new(
                "ROOMCAST_DURABILITY_REPLICAS",
                "must not be zero",
                "use at least 1, or ROOMCAST_DURABILITY=memory",
            ));
        }
        if *self.timeout < TIMEOUT_MIN {
            return Err(ConfigError::new(
                "REDIS_TIMEOUT",
                "is too short: every call would fail, or none would ever end",
                "use a duration of 50ms or more",
            ));
        }
        Ok(())
    }
}

/// Reads a setting with the default that [`Config`] declares for it.
pub fn declared<T: Setting>(source: &Source, name: &'static str) -> Result<T, ConfigError> {
    let setting = Config::SETTINGS.iter().find(|setting| setting.name == name);
    source.setting(name, setting.and_then(|setting| setting.default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_needs_none_of_the_settings_of_a_node() {
        let config = RedisConfig::read(&Source::from_pairs([("REDIS_URL", "redis://a:1")])).unwrap();
        assert_eq!(config.url.expose(), "redis://a:1");
        assert_eq!((*config.timeout, config.partitions), (Duration::from_millis(1500), 128));
        let error = RedisConfig::read(&Source::from_pairs([("REDIS_TIMEOUT", "1ms")])).unwrap_err();
        assert!(error.to_string().contains("REDIS_TIMEOUT"), "{error}");
    }
}
