//! The reference auth, room and message services: what a node calls at `AUTH_URL` and `API_URL`.

mod auth;
mod error;
mod fold;
mod http;
mod input;
mod messages;
mod rooms;
mod serve;
mod store;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tower_http::cors::AllowOrigin;

pub use error::BackendError;
use store::Store;
use tokens::Tokens;

/// HS256 keys shorter than its digest are weaker than the algorithm, in bytes.
const SECRET_BYTES: usize = 32;
/// Seeding is for trying things out; more than this is a slip of the keyboard.
const MAX_SEED: u32 = 1_000_000;

/// What the services need to know.
#[derive(Clone)]
pub struct BackendConfig {
    /// `sqlite://…` or `postgres://…`.
    pub database_url: String,
    /// Signs access tokens (HS256).
    pub jwt_secret: String,
    /// `/login` works without password and creates unknown users.
    pub open_login: bool,
    /// Users `user0`… to make sure of at start.
    pub seed_users: u32,
    /// Rooms `room-0`… to make sure of at start.
    pub seed_rooms: u32,
    /// Rooms that whoever logs in becomes a member of, with `open_login` only.
    pub welcome_rooms: Vec<String>,
    /// What callers of everything but `/login`, `/logout` and `/healthz` must present; none = open.
    pub service_token: Option<String>,
    /// Life of an access token.
    pub access_ttl: Duration,
    /// Life of a refresh token.
    pub refresh_ttl: Duration,
    /// How long a replaced refresh token still works, for a client that never got the answer.
    pub refresh_grace: Duration,
    /// Web origins that may call `/login` and `/logout`; `*` = any (no cookies are involved).
    pub cors_origins: Vec<String>,
    /// Longest handling of one request.
    pub request_timeout: Duration,
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self {
            database_url: "sqlite://roomcast.db".to_owned(),
            jwt_secret: String::new(),
            open_login: false,
            seed_users: 0,
            seed_rooms: 0,
            welcome_rooms: Vec::new(),
            service_token: None,
            access_ttl: Duration::from_secs(15 * 60),
            refresh_ttl: Duration::from_secs(30 * 24 * 60 * 60),
            refresh_grace: Duration::from_secs(30),
            cors_origins: vec!["*".to_owned()],
            request_timeout: Duration::from_secs(15),
        }
    }
}

/// The opened services. Clones share one database; several backends in a process share nothing.
#[derive(Clone)]
pub struct Backend {
    inner: Arc<Inner>,
}

struct Inner {
    config: BackendConfig,
    store: Store,
    tokens: Tokens,
    origins: AllowOrigin,
}

impl Backend {
    /// Checks the configuration, opens and migrates the database, seeds it.
    pub async fn open(config: BackendConfig) -> Result<Self, BackendError> {
        let refuse = |setting, reason: &str| {
            Err(BackendError::Config {
                setting,
                reason: reason.to_owned(),
            })
        };
        if config.jwt_secret.is_empty() {
            return refuse("jwt_secret", "required");
        }
        if config.jwt_secret.len() < SECRET_BYTES {
            tracing::warn!("the JWT secret has fewer than {SECRET_BYTES} bytes");
        }
        if config
            .service_token
            .as_ref()
            .is_some_and(|token| token.trim().is_empty())
        {
            return refuse("service_token", "must not be empty");
        }
        if config.seed_users > MAX_SEED || config.seed_rooms > MAX_SEED {
            return refuse("seed", "too many");
        }
        let origins = http::allowed_origins(&config.cors_origins)?;
        let store = Store::open(&config.database_url).await?;
        if config.seed_users > 0 || config.seed_rooms > 0 {
            store.seed(config.seed_users, config.seed_rooms).await?;
            tracing::info!(users = config.seed_users, rooms = config.seed_rooms, "seeded");
        }
        let tokens = Tokens::new(&config.jwt_secret, config.access_ttl);
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                store,
                tokens,
                origins,
            }),
        })
    }

    /// All paths, for a server of the caller's own.
    pub fn router(&self) -> Router {
        http::router(self, self.inner.origins.clone())
    }

    /// Serves until `shutdown` completes, lets requests under way finish and closes the database, for all clones.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), BackendError> {
        tracing::info!(address = %listener.local_addr()?, "backend listening");
        serve::serve(listener, self.router(), shutdown).await;
        self.close().await;
        Ok(())
    }

    /// Closes the database, for all clones.
    pub async fn close(&self) {
        self.inner.store.close().await;
    }

    /// Adds a user, or sets the password of the one who has the name; the platformid.
    pub async fn add_user(&self, username: &str, password: &str) -> Result<String, BackendError> {
        input::check_name(username, "username")?;
        if password.len() > auth::MAX_PASSWORD_BYTES {
            // It could never be used to log in.
            return Err(BackendError::bad("password", "too long"));
        }
        let account = self.register(username).await?;
        let hash = self.tokens().hash_password(password).await?;
        self.store().set_password_hash(&account.platformid, &hash).await?;
        Ok(account.platformid)
    }

    fn config(&self) -> &BackendConfig {
        &self.inner.config
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn tokens(&self) -> &Tokens {
        &self.inner.tokens
    }
}
