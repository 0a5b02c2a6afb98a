//! What `REDIS_URL` and the TLS settings mean: a server, a Sentinel group, a cluster or a socket file.

use std::sync::Arc;

use fred::types::RespVersion;
use fred::types::config::{Config as ServerSettings, TlsConfig, TlsConnector};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{ConfigError, RedisConfig};

const CA: &str = "REDIS_TLS_CA_FILE";
const CERTIFICATE: &str = "REDIS_TLS_CERT_FILE";
const KEY: &str = "REDIS_TLS_KEY_FILE";

/// The server that the settings name.
pub(super) fn server_config(config: &RedisConfig) -> Result<ServerSettings, ConfigError> {
    let (address, tls) = plain_address(config.url.expose());
    let mut settings = ServerSettings::from_url(&address).map_err(|error| {
        ConfigError::new(
            "REDIS_URL",
            format!("is not usable: {}", error.details()),
            "use an address such as redis://host:6379, redis-cluster://host:6379 or \
             redis-sentinel://host:26379?sentinelServiceName=mymaster",
        )
    })?;
    settings.version = RespVersion::RESP3;
    // The first connection may come late: a node waits for Redis, unready.
    settings.fail_fast = false;
    if tls {
        settings.tls = Some(tls_config(config)?);
    } else if let Some(name) = tls_setting(config) {
        return Err(ConfigError::new(
            name,
            "is set, but REDIS_URL does not use TLS",
            "use rediss:// (rediss-cluster://, rediss-sentinel://) there, or unset it",
        ));
    }
    Ok(settings)
}

/// The address as fred takes it, without TLS, and whether it asks for TLS: fred would read the system's certificates for
/// it, which a container need not have.
fn plain_address(url: &str) -> (String, bool) {
    if let Some(path) = url.strip_prefix("unix:") {
        return (format!("redis+unix:///{}", path.trim_start_matches('/')), false);
    }
    for (tls, plain) in [("rediss", "redis"), ("valkeys", "valkey")] {
        if let Some(rest) = url.strip_prefix(tls) {
            return (format!("{plain}{rest}"), true);
        }
    }
    (url.to_owned(), false)
}

fn tls_setting(config: &RedisConfig) -> Option<&'static str> {
    [
        (CA, &config.tls_ca_file),
        (CERTIFICATE, &config.tls_cert_file),
        (KEY, &config.tls_key_file),
    ]
    .into_iter()
    .find_map(|(name, value)| value.as_ref().map(|_| name))
}

fn tls_config(config: &RedisConfig) -> Result<TlsConfig, ConfigError> {
    let mut roots = RootCertStore::empty();
    match &config.tls_ca_file {
        Some(path) => {
            for certificate in certificates(CA, path)? {
                roots.add(certificate).map_err(|error| unreadable(CA, path, &error))?;
            }
        }
        // What the system has but cannot be read is of no use, and no reason not to use the rest.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() {
        return Err(ConfigError::new(
            CA,
            "is not set and the system has no certificate authorities",
            "name the PEM file with the authority of Redis' certificate",
        ));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new("REDIS_URL", format!("no TLS: {error}"), "use redis://"))?
        .with_root_certificates(roots);
    let client = match (&config.tls_cert_file, &config.tls_key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(
                certificates(CERTIFICATE, certificate)?,
                PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(KEY, key, &error))?,
            )
            .map_err(|error| unreadable(KEY, key, &error))?,
        (Some(_), None) => return Err(missing(KEY)),
        (None, Some(_)) => return Err(missing(CERTIFICATE)),
    };
    Ok(TlsConnector::from(client).into())
}

fn certificates(name: &'static str, path: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(name, path, &error))
}

fn unreadable(name: &'static str, path: &str, error: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::new(
        name,
        format!("cannot use `{path}`: {error}"),
        "name a readable PEM file",
    )
}

fn missing(name: &'static str) -> ConfigError {
    ConfigError::new(
        name,
        "is not set",
        "a client certificate needs REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE",
    )
}

#[cfg(test)]
mod tests {
    use fred::types::config::ServerConfig;

    use super::*;
    use crate::config::Source;

    fn read(pairs: &[(&'static str, &str)]) -> Result<ServerSettings, String> {
        let config = RedisConfig::read(&Source::from_pairs(pairs.iter().copied())).unwrap();
        server_config(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_of_address_is_understood() {
        let server = |url| read(&[("REDIS_URL", url)]).unwrap().server;
        assert!(matches!(server("redis://a:1/2"), ServerConfig::Centralized { .. }));
        for url in ["redis-cluster://a:1?node=b:2", "rediss-cluster://a:1"] {
            assert!(matches!(server(url), ServerConfig::Clustered { .. }), "{url}");
        }
        let sentinel = server("redis-sentinel://a:1?node=b:2&node=c:3&sentinelServiceName=mymaster");
        assert_eq!(sentinel.hosts().len(), 3);
        for url in [
            "unix:/run/redis.sock",
            "unix:///run/redis.sock",
            "redis+unix:///run/redis.sock",
        ] {
            let ServerConfig::Unix { path } = server(url) else {
                panic!("{url}")
            };
            assert_eq!(path.to_str(), Some("/run/redis.sock"), "{url}");
        }
        let error = read(&[("REDIS_URL", "redis-sentinel://a:1")]).unwrap_err();
        assert!(error.contains("sentinelServiceName"), "{error}");
    }

    #[test]
    fn tls_settings_that_cannot_work_are_named() {
        let error = read(&[("REDIS_URL", "redis://a:1"), (CA, "/ca.pem")]).unwrap_err();
        assert!(error.contains(CA) && error.contains("rediss://"), "{error}");
        let error = read(&[("REDIS_URL", "rediss://a:1"), (CA, "/nowhere/ca.pem")]).unwrap_err();
        assert!(error.contains(CA) && error.contains("/nowhere/ca.pem"), "{error}");
    }
}
