//! How the text of a setting becomes its type.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use regex::Regex;

/// A type a setting can have.
pub trait Setting: Sized {
    /// Whether values must not be shown.
    const SECRET: bool = false;
    /// Whether an optional setting without text counts as absent.
    const EMPTY_IS_ABSENT: bool = true;
    /// Whether the setting may be absent.
    const OPTIONAL: bool = false;

    /// Reads the text of a setting; the error tells what would be right.
    fn parse(text: &str) -> Result<Self, String>;

    /// The value of an absent optional setting.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: Setting> Setting for Option<T> {
    const SECRET: bool = T::SECRET;
    const OPTIONAL: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() && T::EMPTY_IS_ABSENT {
            Ok(None)
        } else {
            T::parse(text).map(Some)
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

macro_rules! from_str_setting {
    ($($ty:ty: $hint:literal;)+) => { $(
        impl Setting for $ty {
            fn parse(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| $hint.to_owned())
            }
        }
    )+ };
}

from_str_setting! {
    SocketAddr: "use an address and a port, such as 0.0.0.0:8080";
    IpNet: "use networks such as 10.0.0.0/8,fd00::/8 (a single address is written 192.0.2.1/32)";
    u16: "use a whole number up to 65535";
    u32: "use a whole number";
    u64: "use a whole number";
    usize: "use a whole number";
    f32: "use a number such as 0.7";
    bool: "use true or false";
}

impl Setting for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Setting for Secret {
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            Err("must not be empty".into())
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

/// A secret that opens something: without text it is an accident, and what it opens might look closed, or be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Secret);

impl Key {
    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl Setting for Key {
    const SECRET: bool = true;
    const EMPTY_IS_ABSENT: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        let secret = Secret::parse(text).map_err(|_| "it is empty: use a long random text, or do not set it at all")?;
        Ok(Self(secret))
    }
}

/// The base address of a service, without a slash at its end.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Setting for Url {
    fn parse(text: &str) -> Result<Self, String> {
        let hint = || "use an address such as http://auth.internal:8090".to_owned();
        let url = reqwest::Url::parse(text.trim()).map_err(|_| hint())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(hint());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "credentials do not belong into an address: use UPSTREAM_TOKEN, or GPT_API_KEY for the model".into(),
            );
        }
        Ok(Self(text.trim().trim_end_matches('/').to_owned()))
    }
}

/// A duration of whole milliseconds, written `250ms`, `30s`, `5m`, `2h` or as a plain number of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Millis(Duration);

impl Deref for Millis {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl Setting for Millis {
    fn parse(text: &str) -> Result<Self, String> {
        let hint = || "use a duration such as 250ms, 30s, 5m or 2h".to_owned();
        let text = text.trim();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match &text[digits.len()..] {
            "" | "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(hint()),
        };
        let number: u64 = digits.parse().map_err(|_| hint())?;
        number
            .checked_mul(factor)
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(hint)
    }
}

/// A comma-separated list; empty text is an empty list.
#[derive(Debug, Clone)]
pub struct List<T>(Vec<T>);

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Setting> Setting for List<T> {
    fn parse(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(T::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Which web origins may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Only pages served from the host they connect to.
    Same,
    /// These origins, and the same host.
    List(Vec<String>),
    /// Every origin.
    Any,
}

impl Setting for Origins {
    fn parse(text: &str) -> Result<Self, String> {
        let origins: Vec<String> = text
            .split(',')
            .map(|o| o.trim().trim_end_matches('/').to_ascii_lowercase())
            .filter(|o| !o.is_empty())
            .collect();
        if origins.iter().any(|origin| origin == "*") {
            return if origins.len() == 1 {
                Ok(Self::Any)
            } else {
                Err("`*` stands alone".into())
            };
        }
        if let Some(bad) = origins
            .iter()
            .find(|o| !o.starts_with("http://") && !o.starts_with("https://"))
        {
            return Err(format!(
                "`{bad}` is no origin: use a list such as https://chat.example.com, or `*`"
            ));
        }
        Ok(if origins.is_empty() {
            Self::Same
        } else {
            Self::List(origins)
        })
    }
}

/// What the `userAgent` of a handshake must look like.
#[derive(Debug, Clone)]
pub enum AppMatch {
    /// It contains this text.
    Contains(String),
    /// It matches this expression.
    Regex(Regex),
}

impl AppMatch {
    /// Whether `user_agent` comes from the application.
    pub fn matches(&self, user_agent: &str) -> bool {
        match self {
            Self::Contains(text) => user_agent.contains(text.as_str()),
            Self::Regex(regex) => regex.is_match(user_agent),
        }
    }
}

impl Setting for AppMatch {
    fn parse(text: &str) -> Result<Self, String> {
        // An empty pattern is in every text: it would look like a check and let everybody in.
        if text.strip_prefix("re:").unwrap_or(text).trim().is_empty() {
            return Err(
                "must not be empty: use a text that every genuine client's userAgent contains, such as Mozilla".into(),
            );
        }
        match text.strip_prefix("re:") {
            Some(pattern) => Regex::new(pattern)
                .map(Self::Regex)
                .map_err(|error| format!("is no regular expression: {error}")),
            None => Ok(Self::Contains(text.to_owned())),
        }
    }
}

macro_rules! word_setting {
    ($(#[$doc:meta])* $name:ident { $( $(#[$vdoc:meta])* $variant:ident = $word:literal ),+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $( $(#[$vdoc])* $variant ),+ }

        impl $name {
            /// Every one of them, in the order of the documentation.
            pub const ALL: &[Self] = &[ $( Self::$variant ),+ ];

            /// The word in the settings.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl Setting for $name {
            fn parse(text: &str) -> Result<Self, String> {
                match text.trim() {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err(concat!("use one of:" $(, " ", $word)+).to_owned()),
                }
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                <Self as Setting>::parse(text)
            }
        }
    };
}

word_setting! {
    /// Where access tokens are verified.
    AuthMode {
        /// Here, with a local key or a key set.
        Jwt = "jwt",
        /// By the auth service.
        Http = "http"
    }
}
word_setting! {
    /// How traces are sent, in OpenTelemetry's words.
    OtlpProtocol {
        /// Protobuf over HTTP.
        Http = "http/protobuf",
        /// gRPC.
        Grpc = "grpc"
    }
}
word_setting! {
    /// Which events are traced, in OpenTelemetry's words.
    TraceSampler {
        /// All of them.
        AlwaysOn = "always_on",
        /// None.
        AlwaysOff = "always_off",
        /// A share.
        Ratio = "traceidratio",
        /// All of them; none comes with a decision made elsewhere.
        ParentOn = "parentbased_always_on",
        /// None.
        ParentOff = "parentbased_always_off",
        /// A share.
        ParentRatio = "parentbased_traceidratio"
    }
}
word_setting! {
    /// When a message counts as stored.
    Durability {
        /// When the server has answered.
        Memory = "memory",
        /// When it is on the server's disk.
        Fsync = "fsync",
        /// When replicas have it too.
        Replica = "replica"
    }
}
word_setting! {
    /// Whom the token request limit blocks.
    TokenScope {
        /// The address that was counted.
        Address = "address",
        /// The login session that went over it.
        Session = "session"
    }
}
word_setting! {
    /// Whether connections of trusted proxies begin with a PROXY protocol header.
    ProxyProtocol {
        /// They may.
        Optional = "optional",
        /// They must.
        Required = "required"
    }
}
word_setting! {
    /// The form of log lines.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(*Millis::parse("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(*Millis::parse("2h").unwrap(), Duration::from_secs(7200));
        assert_eq!(*Millis::parse("15").unwrap(), Duration::from_millis(15));
        assert!(Millis::parse("2 days").is_err());
        assert!(Millis::parse("99999999999999999h").is_err());
    }

    #[test]
    fn the_application_is_a_substring_or_an_expression() {
        assert!(AppMatch::parse("Vision").unwrap().matches("Vision/2 (x)"));
        assert!(!AppMatch::parse("Vision.").unwrap().matches("Vision/2"));
        assert!(AppMatch::parse("re:^Vision/[0-9]+").unwrap().matches("Vision/12"));
        assert!(AppMatch::parse("").is_err());
    }

    #[test]
    fn origins_are_a_list_or_a_star() {
        assert_eq!(Origins::parse("").unwrap(), Origins::Same);
        assert_eq!(Origins::parse("*").unwrap(), Origins::Any);
        assert!(Origins::parse("https://a.example, *").is_err());
        assert!(Origins::parse("a.example").is_err());
    }
}
