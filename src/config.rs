//! Every setting, its default and its check; the only reader of the environment.
//!
//! A setting comes from a flag, else from the environment or `.env`, else from the TOML file given by `--config`,
//! else from its default. `roomcast config` prints the table that the macro below keeps.

mod source;
#[macro_use]
mod value;
mod checks;
mod limits;
mod redis;

use std::net::SocketAddr;

use ipnet::IpNet;

pub use limits::{Rate, Rule};
pub use redis::{RedisConfig, declared};
pub use source::{ConfigError, Source};
use value::Url;
pub use value::{
    AppMatch, AuthMode, Durability, Key, List, LogFormat, Millis, Origins, OtlpProtocol, ProxyProtocol, Secret,
    Setting, TokenScope, TraceSampler,
};

/// One row of `roomcast config`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SettingInfo {
    /// The name in the environment and in the TOML file.
    pub name: &'static str,
    /// The default, as one would write it; `None` when there is none.
    pub default: Option<&'static str>,
    /// What it does.
    pub doc: &'static str,
    /// Whether it may be absent.
    pub optional: bool,
    /// Whether its value is secret: it may then also come from the file named by `<NAME>_FILE`.
    pub secret: bool,
}

/// Declares the settings: `field: Type = "default" => "NAME"`, or `field: Option<Type> => "NAME"`.
macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $field:ident : $ty:ty $(= $default:literal)? => $name:literal; )+) => {
        /// The typed configuration of every role.
        #[derive(Debug, Clone)]
        pub struct Config { $( $(#[doc = $doc])+ pub $field: $ty, )+ }

        impl Config {
            /// Every setting in the order of the documentation.
            pub const SETTINGS: &[SettingInfo] = &[ $( SettingInfo {
                name: $name,
                default: settings!(@default $($default)?),
                doc: concat!($($doc, "\n"),+),
                optional: <$ty as Setting>::OPTIONAL,
                secret: <$ty as Setting>::SECRET,
            }, )+ ];

            /// Reads every setting; the first bad value is the error.
            pub fn read(source: &Source) -> Result<Self, ConfigError> {
                source.refuse_unknown(Self::SETTINGS)?;
                Ok(Self { $( $field: source.setting($name, settings!(@default $($default)?))?, )+ })
            }
        }
    };
    (@default $default:literal) => { Some($default) };
    (@default) => { None };
}

settings! {
    /// Where clients connect.
    listen: SocketAddr = "0.0.0.0:8080" => "ROOMCAST_LISTEN";
    /// Where health, metrics and administration answer.
    ops_listen: SocketAddr = "0.0.0.0:9090" => "ROOMCAST_OPS_LISTEN";
    /// Redis: redis://, redis-cluster://, redis-sentinel://, each with TLS as rediss…://, or unix:/path.
    redis_url: Secret = "redis://127.0.0.1:6379" => "REDIS_URL";
    /// PEM file of the authorities that may sign the certificate of Redis; unset: those of the system.
    redis_tls_ca_file: Option<String> => "REDIS_TLS_CA_FILE";
    /// PEM file of this client's certificate, where Redis asks for one (`tls-auth-clients yes`).
    redis_tls_cert_file: Option<String> => "REDIS_TLS_CERT_FILE";
    /// PEM file of that certificate's private key.
    redis_tls_key_file: Option<String> => "REDIS_TLS_KEY_FILE";
    /// Where access tokens are verified: `jwt` (here) or `http` (by the auth service).
    auth_mode: AuthMode = "jwt" => "AUTH_MODE";
    /// How often an access token is verified again where the auth service does not say when it ends (`AUTH_MODE=http`).
    auth_verify_every: Millis = "60s" => "AUTH_VERIFY_EVERY";
    /// HS256 secret of access tokens.
    jwt_secret: Option<Secret> => "JWT_SECRET";
    /// PEM public key of access tokens (RS256, ES256, EdDSA).
    jwt_public_key: Option<Secret> => "JWT_PUBLIC_KEY";
    /// Address of the JSON Web Key Set of access tokens.
    jwks_url: Option<Url> => "JWKS_URL";
    /// Clock difference tolerated in `exp` and `nbf`.
    jwt_leeway: Millis = "60s" => "JWT_LEEWAY";
    /// Value that `iss` must have.
    jwt_issuer: Option<String> => "JWT_ISSUER";
    /// Value that `aud` must contain.
    jwt_audience: Option<String> => "JWT_AUDIENCE";
    /// Claim that holds the user's id.
    jwt_claim_platformid: String = "platformid" => "JWT_CLAIM_PLATFORMID";
    /// Claim that holds the user's name.
    jwt_claim_username: String = "username" => "JWT_CLAIM_USERNAME";
    /// Claim that holds the login session.
    jwt_claim_sid: String = "sid" => "JWT_CLAIM_SID";
    /// Base address of the auth service.
    auth_url: Url => "AUTH_URL";
    /// Base address of the room and message service.
    api_url: Url => "API_URL";
    /// Bearer token sent to both services.
    upstream_token: Option<Secret> => "UPSTREAM_TOKEN";
    /// How long one call of a service may take.
    upstream_timeout: Millis = "3s" => "UPSTREAM_TIMEOUT";
    /// Path of the access token check.
    path_verify: String = "/verify-access-token" => "PATH_VERIFY_ACCESS_TOKEN";
    /// Path of the token exchange.
    path_refresh: String = "/refresh-token" => "PATH_REFRESH_TOKEN";
    /// Path of the room check.
    path_check_room: String = "/api/rooms/check-room" => "PATH_CHECK_ROOM";
    /// Path of a user's room list.
    path_user_rooms: String = "/api/rooms/user-rooms" => "PATH_USER_ROOMS";
    /// Path that removes a user from a room.
    path_delete_room: String = "/api/rooms/delete-room" => "PATH_DELETE_ROOM";
    /// Path of a page of messages; the room id follows.
    path_get_messages: String = "/api/messages/get-messages" => "PATH_GET_MESSAGES";
    /// Path of one message; room id and message id follow.
    path_get_message: String = "/api/messages/get-message" => "PATH_GET_MESSAGE";
    /// Path of the messages of several rooms.
    path_sync_rooms: String = "/api/messages/sync-rooms" => "PATH_SYNC_ROOMS";
    /// Path that archives events.
    path_save_messages: String = "/api/messages/save-messages" => "PATH_SAVE_MESSAGES";
    /// What a client's `userAgent` must contain; with the prefix `re:` a regular expression.
    vision_app_info: AppMatch => "VISION_APP_INFO";
    /// Proxies (CIDR list) whose `X-Forwarded-For` and PROXY protocol header (v1, v2) are believed; empty: the peer is
    /// the client.
    trusted_proxies: List<IpNet> = "" => "TRUSTED_PROXIES";
    /// Whether a connection of a trusted proxy may (`optional`) or must (`required`) begin with a PROXY header. Nobody
    /// else's is ever read. `required` closes those without one: for proxies that forward TCP, where a forgotten
    /// `send-proxy` would let clients write `X-Forwarded-For` themselves.
    proxy_protocol: ProxyProtocol = "optional" => "PROXY_PROTOCOL";
    /// Web origins that may connect: a list, or `*`; empty: the same origin only.
    cors_origins: Origins = "" => "CORS_ORIGINS";
    /// Addresses (CIDR list) exempt from address limits and blocks.
    guard_allow: List<IpNet> = "" => "GUARD_ALLOW";
    /// Token requests of one address per window.
    guard_token_requests: u32 = "120" => "GUARD_TOKEN_REQUESTS";
    /// Window of the token request limit.
    guard_token_requests_window: Millis = "60s" => "GUARD_TOKEN_REQUESTS_WINDOW";
    /// Whom the token request limit blocks: `address` or `session`.
    guard_token_requests_scope: TokenScope = "address" => "GUARD_TOKEN_REQUESTS_SCOPE";
    /// How long a block lasts: the first one of an address, session or user, the second one within a day after it, and so
    /// on; further ones last as long as the last.
    guard_block: List<Millis> = "1m,5m,30m,2h,24h" => "GUARD_BLOCK";
    /// Strikes (refused acts such as a foreign room) within `GUARD_STRIKES_WINDOW` after which the session is blocked.
    guard_strikes: u32 = "20" => "GUARD_STRIKES";
    /// Window in which strikes are counted.
    guard_strikes_window: Millis = "60s" => "GUARD_STRIKES_WINDOW";
    /// Handshakes of one address, over all nodes.
    guard_handshakes: Rate = "50/s burst 300" => "GUARD_HANDSHAKES_PER_ADDRESS";
    /// Sockets of one address, over all nodes; 0: any number.
    guard_sockets_per_address: u32 = "5000" => "GUARD_SOCKETS_PER_ADDRESS";
    /// Sockets of one user, over all nodes; 0: any number.
    guard_sockets_per_user: u32 = "20" => "GUARD_SOCKETS_PER_USER";
    /// Connections of one address to one node that have not said who they are yet.
    guard_unauthenticated_per_address: u32 = "1000" => "GUARD_UNAUTHENTICATED_PER_ADDRESS";
    /// Connections to one node that have not said who they are yet; above it the oldest are closed.
    guard_unauthenticated: u32 = "5000" => "GUARD_UNAUTHENTICATED";
    /// Events of one socket; some weigh more than one.
    guard_events: Rate = "100/s burst 2000" => "GUARD_EVENTS_PER_SOCKET";
    /// Messages of one user; what other nodes took is known within a second.
    guard_messages: Rate = "50/s burst 2000" => "GUARD_MESSAGES_PER_USER";
    /// Costly events of one user (`syncRooms`, `deleteroom`, `refreshToken`), over all nodes.
    guard_costly: Rate = "2/s burst 240" => "GUARD_COSTLY_PER_USER";
    /// Rules (list) that are only watched: counted and logged, not enforced. See docs/guard.md for the names.
    guard_shadow: List<Rule> = "" => "GUARD_SHADOW";
    /// Rooms up to which `syncRooms` answers with `syncRoomsResponse`; above it with one batch as `updatedRooms`.
    sync_parallel_max: usize = "10" => "SYNC_PARALLEL_MAX";
    /// When a message counts as stored: `memory` (the server has it), `fsync` (it is on the server's disk, which needs
    /// `appendfsync always`) or `replica` (replicas have it too, which needs `min-replicas-to-write`).
    durability: Durability = "memory" => "ROOMCAST_DURABILITY";
    /// Replicas that must have a message before it counts as stored by `replica`.
    durability_replicas: u32 = "1" => "ROOMCAST_DURABILITY_REPLICAS";
    /// Partitions of the key space; must be the same on every node and never change on a live cluster.
    partitions: u16 = "128" => "ROOMCAST_PARTITIONS";
    /// Largest frame or polling request of a client, in bytes.
    max_payload: usize = "65536" => "ROOMCAST_MAX_PAYLOAD";
    /// Longest message text, in bytes of UTF-8.
    max_text: usize = "16384" => "ROOMCAST_MAX_TEXT";
    /// Events of one room's log kept at most in Redis.
    log_max_len: u32 = "20000" => "ROOMCAST_LOG_MAX_LEN";
    /// Newest events of a room's log that stay in Redis after they are archived.
    log_keep_events: u32 = "1000" => "ROOMCAST_LOG_KEEP_EVENTS";
    /// Events younger than this stay in Redis after they are archived.
    log_keep_age: Millis = "10m" => "ROOMCAST_LOG_KEEP_AGE";
    /// Archive backlog of one partition, in bytes, over which messages are refused as `unavailable`.
    archive_max_bytes: usize = "67108864" => "ROOMCAST_ARCHIVE_MAX_BYTES";
    /// How long a blocked write may last before the connection is cut.
    write_stall: Millis = "15s" => "ROOMCAST_WRITE_STALL";
    /// How long a connection may take to send its PROXY header, and then its request head.
    header_timeout: Millis = "10s" => "ROOMCAST_HEADER_TIMEOUT";
    /// How often the server pings a client.
    ping_interval: Millis = "30s" => "ROOMCAST_PING_INTERVAL";
    /// How long a client may take to answer a ping.
    ping_timeout: Millis = "60s" => "ROOMCAST_PING_TIMEOUT";
    /// How long a call of Redis may take.
    redis_timeout: Millis = "1500ms" => "REDIS_TIMEOUT";
    /// How long a stopping node stays unready before it closes connections.
    drain_notice: Millis = "0s" => "ROOMCAST_DRAIN_NOTICE";
    /// Over how long a stopping node spreads the closing of its connections.
    drain_spread: Millis = "5s" => "ROOMCAST_DRAIN_SPREAD";
    /// Share of its sockets that a node with more than its share of all may send away in a minute, so that they find
    /// another one; 0: it keeps them.
    rebalance: f32 = "0.1" => "ROOMCAST_REBALANCE_PER_MINUTE";
    /// How far above the mean of all nodes, as a share of it, a node has to be before it sends sockets away. It goes on
    /// down to a quarter of that.
    rebalance_above: f32 = "0.25" => "ROOMCAST_REBALANCE_ABOVE";
    /// How long the nodes must have been the same, none of them draining and Redis well, before sockets are sent away for
    /// balance: longer than from one drain of a rollout to the next.
    rebalance_after: Millis = "2m" => "ROOMCAST_REBALANCE_AFTER";
    /// This process' pod (`namespace/name`) in Kubernetes, whose deletion cost is kept at its number of sockets, so that a
    /// scale-in takes the emptiest node; its service account must be allowed to patch pods. Unset: nothing is written.
    pod: Option<String> => "ROOMCAST_POD";
    /// Where Kubernetes answers.
    kubernetes_url: Url = "https://kubernetes.default.svc" => "ROOMCAST_KUBERNETES_URL";
    /// Folder with the service account's `token` and `ca.crt`.
    service_account: String = "/var/run/secrets/kubernetes.io/serviceaccount" => "ROOMCAST_SERVICE_ACCOUNT";
    /// Bearer token of `/admin` on the operations listener; unset: `/admin` is not there.
    admin_token: Option<Key> => "ROOMCAST_ADMIN_TOKEN";
    /// Share of the memory limit (of the control group, as containers have it) above which the process is not ready, until it
    /// is a tenth below; 0: never. Without a limit it does nothing.
    memory_share: f32 = "0.9" => "ROOMCAST_MEMORY_SHARE";
    /// Where the demo's page logs in (`roomcast backend --open-login`); unset: this node serves no page.
    demo_page: Option<Url> => "ROOMCAST_DEMO_PAGE";
    /// Addresses of the nodes that the demo's page may connect to.
    demo_nodes: List<Url> = "" => "ROOMCAST_DEMO_NODES";
    /// The beginning of a text that asks for a reply of the model.
    gpt_mention: String = "@gpt" => "GPT_MENTION";
    /// Questions that one worker answers at once.
    gpt_parallel: usize = "32" => "GPT_PARALLEL";
    /// How long a question may take from being asked to its end.
    gpt_deadline: Millis = "180s" => "GPT_DEADLINE";
    /// Base addresses (list, the preferred one first) of OpenAI-compatible endpoints, up to and without
    /// `/chat/completions`; unset: there are no replies.
    gpt_base_url: List<Url> = "" => "GPT_BASE_URL";
    /// Key of the endpoints: one for all, or a list in the order of `GPT_BASE_URL` (an empty item: no key).
    gpt_api_key: Option<Secret> => "GPT_API_KEY";
    /// Name of the model: one for all endpoints, or a list in the order of `GPT_BASE_URL`.
    gpt_model: List<String> = "gpt-4o-mini" => "GPT_MODEL";
    /// Temperature of the model, 0 to 2; unset: the endpoint's own.
    gpt_temperature: Option<f32> => "GPT_TEMPERATURE";
    /// What the model is told before the room's messages.
    gpt_system_prompt: String = "You are a member of a group chat. Answer the last message, in its language, briefly \
        and in plain text." => "GPT_SYSTEM_PROMPT";
    /// Tokens a prompt may have: system prompt, the room's newest messages and the question.
    gpt_context_tokens: u32 = "8000" => "GPT_CONTEXT_TOKENS";
    /// Tokens of a summary of the room's messages that no longer fit, which the model writes anew as they become more;
    /// 0: there is none.
    gpt_summary_tokens: u32 = "0" => "GPT_SUMMARY_TOKENS";
    /// Tokens a reply may have.
    gpt_max_tokens: u32 = "1024" => "GPT_MAX_TOKENS";
    /// Bytes a reply may have, whatever the endpoint thinks of `GPT_MAX_TOKENS`.
    gpt_max_reply_bytes: usize = "65536" => "GPT_MAX_REPLY_BYTES";
    /// Tokens (prompts and replies) that the questions of one user may take in a day, from midnight to midnight UTC;
    /// 0: any number.
    gpt_user_daily_tokens: u64 = "0" => "GPT_USER_DAILY_TOKENS";
    /// Tokens that the questions of one room may take in a day, whoever asks; 0: any number.
    gpt_room_daily_tokens: u64 = "0" => "GPT_ROOM_DAILY_TOKENS";
    /// Calls of the model whose usage is kept in Redis (`rc:{gpt}:usage`), the newest; 0: none.
    gpt_usage_entries: u32 = "100000" => "GPT_USAGE_ENTRIES";
    /// Bytes of a room's own prompt (`gptPrompt` in the room service's answer), which follows GPT_SYSTEM_PROMPT; what is
    /// longer is cut. 0: rooms have none, the room service is not asked.
    gpt_room_prompt_bytes: usize = "4096" => "GPT_ROOM_PROMPT_BYTES";
    /// How long an endpoint may take to send a first token.
    gpt_first_token_timeout: Millis = "20s" => "GPT_FIRST_TOKEN_TIMEOUT";
    /// How long a reply may pause between two tokens.
    gpt_idle_timeout: Millis = "15s" => "GPT_IDLE_TIMEOUT";
    /// Where traces go: the base address of an OTLP collector, such as `http://collector:4318` (HTTP) or `:4317` (gRPC);
    /// unset: there are none.
    otlp_endpoint: Option<Url> => "OTEL_EXPORTER_OTLP_ENDPOINT";
    /// How: `http/protobuf` or `grpc`.
    otlp_protocol: OtlpProtocol = "http/protobuf" => "OTEL_EXPORTER_OTLP_PROTOCOL";
    /// Headers of every request to the collector, `name=value,…`.
    otlp_headers: Option<Secret> => "OTEL_EXPORTER_OTLP_HEADERS";
    /// How long one request to the collector may take.
    otlp_timeout: Millis = "10s" => "OTEL_EXPORTER_OTLP_TIMEOUT";
    /// Which events of clients are traced: `always_on`, `always_off` or `traceidratio`; as nothing comes before them, the
    /// same with `parentbased_` means the same.
    traces_sampler: TraceSampler = "parentbased_always_on" => "OTEL_TRACES_SAMPLER";
    /// The share of them for `traceidratio`, 0 to 1.
    traces_sampler_arg: f32 = "1.0" => "OTEL_TRACES_SAMPLER_ARG";
    /// The name of the service in traces.
    otel_service_name: String = "roomcast" => "OTEL_SERVICE_NAME";
    /// What else traces say of this process, `name=value,…`.
    otel_resource: String = "" => "OTEL_RESOURCE_ATTRIBUTES";
    /// Log filter, in the syntax of tracing's `EnvFilter`.
    log: String = "info" => "ROOMCAST_LOG";
    /// Log format: `text` or `json`.
    log_format: LogFormat = "text" => "ROOMCAST_LOG_FORMAT";
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn required() -> Vec<(&'static str, &'static str)> {
        vec![
            ("AUTH_URL", "http://127.0.0.1:1"),
            ("API_URL", "http://127.0.0.1:2/"),
            ("VISION_APP_INFO", "Vision"),
            ("JWT_SECRET", "s3cret-s3cret"),
        ]
    }

    fn read(extra: &[(&'static str, &'static str)]) -> Result<Config, String> {
        let mut pairs = required();
        pairs.extend_from_slice(extra);
        let config = Config::read(&Source::from_pairs(pairs)).map_err(|error| error.to_string())?;
        config.validate().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn admin_token_without_text_is_refused() {
        for text in ["", "  ", "\n"] {
            let error = read(&[("ROOMCAST_ADMIN_TOKEN", text)]).unwrap_err();
            assert!(error.starts_with("ROOMCAST_ADMIN_TOKEN: "), "{error}");
            assert!(error.contains("do not set it at all"), "{error}");
        }
        assert!(read(&[]).unwrap().admin_token.is_none());
        let token = read(&[("ROOMCAST_ADMIN_TOKEN", "t0ken")]).unwrap().admin_token.unwrap();
        assert_eq!(
            (token.expose(), format!("{token:?}").contains("t0ken")),
            ("t0ken", false)
        );
    }

    #[test]
    fn every_default_is_valid() {
        let config = read(&[]).unwrap();
        assert_eq!(config.listen.port(), 8080);
        assert_eq!(config.api_url.as_str(), "http://127.0.0.1:2");
        assert_eq!(*config.redis_timeout, Duration::from_millis(1500));
    }

    #[test]
    fn a_bad_value_names_the_setting_and_the_cure() {
        let error = read(&[("TRUSTED_PROXIES", "10.0.0.0/40")]).unwrap_err();
        assert!(
            error.contains("TRUSTED_PROXIES") && error.contains("10.0.0.0/8"),
            "{error}"
        );
        let error = read(&[("ROOMCAST_PARTITIONS", "0")]).unwrap_err();
        assert!(
            error.contains("ROOMCAST_PARTITIONS") && error.contains("4096"),
            "{error}"
        );
        for (name, value) in [
            ("ROOMCAST_DURABILITY_REPLICAS", "0"),
            ("REDIS_TIMEOUT", "0s"),
            ("AUTH_VERIFY_EVERY", "0s"),
            ("GPT_TEMPERATURE", "NaN"),
            ("ROOMCAST_MEMORY_SHARE", "90"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("GPT_MAX_TOKENS", "0"),
            ("GPT_SUMMARY_TOKENS", "2001"),
            ("GPT_IDLE_TIMEOUT", "0"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
        for text in ["re:(", "", " ", "re:", "re: "] {
            let error = read(&[("VISION_APP_INFO", text)]).unwrap_err();
            assert!(error.contains("VISION_APP_INFO"), "`{text}`: {error}");
        }
        let error = read(&[("PROXY_PROTOCOL", "required")]).unwrap_err();
        assert!(error.contains("TRUSTED_PROXIES"), "{error}");
        let error = read(&[("JWKS_URL", "http://x")]).unwrap_err();
        assert!(error.contains("exactly one"), "{error}");
    }

    #[test]
    fn a_missing_required_setting_is_named() {
        let error = Config::read(&Source::from_pairs([("AUTH_URL", "http://127.0.0.1:1")]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("API_URL"), "{error}");
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let shown = format!("{:?}", read(&[]).unwrap());
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
