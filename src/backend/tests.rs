//! The services over HTTP, as callers meet them: a real server on a free port, a database of its own for every test.

mod auth;
mod guard;
mod messages;
mod paging;
mod rooms;
mod support;
