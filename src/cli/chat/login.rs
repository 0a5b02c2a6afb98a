//! The login at the backend, and the rooms it knows.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::CliError;
use crate::config::ConfigError;

/// A person is waiting: longer than any healthy answer, hashing the password included.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Who is logged in, and the newest tokens.
pub struct Credentials {
    pub platformid: String,
    pub username: String,
    pub access_token: String,
    pub refresh_token: String,
}

/// The backend to log in at.
pub struct Login {
    http: reqwest::Client,
    backend: String,
    /// Whether the address was only guessed.
    assumed: bool,
}

impl Login {
    /// Prepares calls to `backend`.
    pub fn new(backend: &str, assumed: bool) -> Result<Self, CliError> {
        let mut http = reqwest::Client::builder()
            .timeout(ANSWER_MAX)
            .redirect(reqwest::redirect::Policy::none());
        if !backend.starts_with("https:") {
            // Reading the system's certificates fails in an image that has none, and nobody needs them here.
            http = http.tls_certs_only([]);
        }
        let http = http
            .build()
            .map_err(|error| CliError::Internal(format!("cannot prepare HTTP: {error}")))?;
        Ok(Self {
            http,
            backend: backend.to_owned(),
            assumed,
        })
    }

    /// Begins a session.
    pub async fn log_in(&self, user: &str, password: Option<&str>) -> Result<Credentials, CliError> {
        let body = match password {
            Some(password) => json!({ "username": user, "password": password }),
            None => json!({ "username": user }),
        };
        let request = self.http.post(format!("{}/login", self.backend)).json(&body);
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let answer: Value = response.json().await.unwrap_or_default();
        if !status.is_success() {
            return Err(self.refused(status, &answer, password.is_some()));
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let credentials = (|| {
            Some(Credentials {
                platformid: text(&answer["user"]["platformid"])?,
                username: text(&answer["user"]["username"])?,
                access_token: text(&answer["accessToken"])?,
                refresh_token: text(&answer["refreshToken"])?,
            })
        })();
        credentials.ok_or_else(|| {
            let backend = &self.backend;
            CliError::Unavailable(format!(
                "{backend} answered the login with something else than tokens{}",
                self.hint()
            ))
        })
    }

    /// The user's rooms; none where the backend tells them only to nodes.
    pub async fn rooms(&self, who: &Credentials) -> Vec<String> {
        let body = json!({ "platformid": who.platformid, "username": who.username });
        let request = self
            .http
            .post(format!("{}/api/rooms/user-rooms", self.backend))
            .json(&body);
        let Ok(response) = request.send().await else {
            return Vec::new();
        };
        let answer: Value = response.json().await.unwrap_or_default();
        let rooms = answer["rooms"].as_array().map(Vec::as_slice).unwrap_or_default();
        rooms.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        if error.is_builder() {
            return ConfigError::new(
                "--backend",
                format!("`{}` is no address", self.backend),
                "use an http:// one",
            )
            .into();
        }
        let problem = if error.is_timeout() {
            "does not answer"
        } else {
            "cannot be reached"
        };
        CliError::Unavailable(format!("the backend at {} {problem}{}", self.backend, self.hint()))
    }

    fn refused(&self, status: reqwest::StatusCode, answer: &Value, with_password: bool) -> CliError {
        let reason = answer["message"].as_str().unwrap_or("no reason given");
        match status.as_u16() {
            401 if with_password => ConfigError::new("--password", "does not fit the user", "check both").into(),
            401 => ConfigError::new(
                "--password",
                "is needed here",
                "set ROOMCAST_CHAT_PASSWORD, or use --password",
            )
            .into(),
            400..=499 if status != reqwest::StatusCode::NOT_FOUND => {
                ConfigError::new("--user", format!("was refused: {reason}"), "check the name").into()
            }
            code => CliError::Unavailable(format!(
                "the backend at {} answered the login with {code}: {reason}{}",
                self.backend,
                self.hint()
            )),
        }
    }

    fn hint(&self) -> &'static str {
        if self.assumed {
            "; that address was guessed from --url, name the right one with --backend"
        } else {
            ""
        }
    }
}
