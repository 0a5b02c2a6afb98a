//! What settings must agree on: the checks that one value alone cannot fail.

use std::time::Duration;

use super::{AuthMode, Config, ConfigError, ProxyProtocol, RedisConfig};

/// Below it a node would ask the auth service without end.
const AUTH_VERIFY_EVERY_MIN: Duration = Duration::from_secs(1);

impl Config {
    /// Checks what one setting alone cannot tell.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let keys = [
            self.jwt_secret.is_some(),
            self.jwt_public_key.is_some(),
            self.jwks_url.is_some(),
        ];
        if self.auth_mode == AuthMode::Jwt && keys.iter().filter(|set| **set).count() != 1 {
            return Err(ConfigError::new(
                "AUTH_MODE",
                "`jwt` needs exactly one key",
                "set one of JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL, or AUTH_MODE=http",
            ));
        }
        if self.guard_block.is_empty() || self.guard_block.iter().any(|step| step.is_zero()) {
            return Err(ConfigError::new(
                "GUARD_BLOCK",
                "has no step, or one of no length",
                "use durations such as 1m,5m,30m,2h,24h; to block nobody, name the rules in GUARD_SHADOW",
            ));
        }
        if *self.auth_verify_every < AUTH_VERIFY_EVERY_MIN {
            return Err(ConfigError::new(
                "AUTH_VERIFY_EVERY",
                "is too short: every socket asks the auth service that often",
                "use a duration of 1s or more",
            ));
        }
        if self.proxy_protocol == ProxyProtocol::Required && self.trusted_proxies.is_empty() {
            return Err(ConfigError::new(
                "PROXY_PROTOCOL",
                "is `required`, and TRUSTED_PROXIES names no proxy that could send a header",
                "set TRUSTED_PROXIES to the addresses of your proxies, or PROXY_PROTOCOL=optional",
            ));
        }
        RedisConfig::from(self).validate()?;
        if !(0.0..=1.0).contains(&self.traces_sampler_arg) {
            return Err(ConfigError::new(
                "OTEL_TRACES_SAMPLER_ARG",
                "is out of range",
                "use a share from 0 to 1, such as 0.01",
            ));
        }
        if !(0.0..=1.0).contains(&self.rebalance) {
            return Err(ConfigError::new(
                "ROOMCAST_REBALANCE_PER_MINUTE",
                "is out of range",
                "use a share from 0 (never) to 1, such as 0.1",
            ));
        }
        if !(0.05..=10.0).contains(&self.rebalance_above) {
            return Err(ConfigError::new(
                "ROOMCAST_REBALANCE_ABOVE",
                "is out of range",
                "use a number from 0.05 to 10, such as 0.25; to keep all sockets, set ROOMCAST_REBALANCE_PER_MINUTE=0",
            ));
        }
        if !(0.0..=1.0).contains(&self.memory_share) {
            return Err(ConfigError::new(
                "ROOMCAST_MEMORY_SHARE",
                "is out of range",
                "use a number from 0 (never) to 1, such as 0.9",
            ));
        }
        if self.gpt_temperature.is_some_and(|value| !(0.0..=2.0).contains(&value)) {
            return Err(ConfigError::new(
                "GPT_TEMPERATURE",
                "is out of range",
                "use a number from 0 to 2, or leave it to the endpoint",
            ));
        }
        for (name, is_zero) in [
            ("GPT_PARALLEL", self.gpt_parallel == 0),
            ("GPT_DEADLINE", self.gpt_deadline.is_zero()),
            ("GPT_CONTEXT_TOKENS", self.gpt_context_tokens == 0),
            ("GPT_MAX_TOKENS", self.gpt_max_tokens == 0),
            ("GPT_MAX_REPLY_BYTES", self.gpt_max_reply_bytes == 0),
            ("GPT_FIRST_TOKEN_TIMEOUT", self.gpt_first_token_timeout.is_zero()),
            ("GPT_IDLE_TIMEOUT", self.gpt_idle_timeout.is_zero()),
        ] {
            if is_zero {
                return Err(ConfigError::new(
                    name,
                    "must not be zero: no reply would ever come",
                    "leave it unset for the default",
                ));
            }
        }
        if self.gpt_summary_tokens > self.gpt_context_tokens / 4 {
            return Err(ConfigError::new(
                "GPT_SUMMARY_TOKENS",
                "is more than a quarter of GPT_CONTEXT_TOKENS: the messages themselves would have no room",
                "lower it, or raise GPT_CONTEXT_TOKENS",
            ));
        }
        if self.max_text + 4096 > self.max_payload {
            return Err(ConfigError::new(
                "ROOMCAST_MAX_TEXT",
                "does not fit into ROOMCAST_MAX_PAYLOAD with its envelope",
                "lower it, or raise ROOMCAST_MAX_PAYLOAD to at least 4096 bytes more",
            ));
        }
        if self.ping_interval.is_zero() || self.ping_timeout.is_zero() {
            return Err(ConfigError::new(
                "ROOMCAST_PING_INTERVAL",
                "must not be zero",
                "use a duration such as 30s",
            ));
        }
        Ok(())
    }
}
