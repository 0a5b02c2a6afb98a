//! The client against a real server and against servers that misbehave.

mod misbehaviour;
mod transports;
