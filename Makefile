# Everything a developer types. Each target installs what it is missing.
.DEFAULT_GOAL := help
.PHONY: help packages client build demo test lint unit e2e release

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

help: ## show this list
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

packages:
	@.ci/packages

client: packages ## install the official Socket.IO client for the tests
	@cd tests/e2e && [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent

build: packages ## build roomcast
	$(CARGO) build --bin roomcast

demo: build ## run everything on this machine; prints the addresses and how to chat
	@$(TARGET)/debug/roomcast demo

lint: packages ## check format and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

unit: packages ## unit and integration tests
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --workspace --no-fail-fast --status-level fail --final-status-level slow
else
	$(CARGO) test --workspace --no-fail-fast
endif

e2e: build client ## end-to-end tests with the official client
	node tests/e2e/run.mjs --binary $(TARGET)/debug/roomcast

test: lint unit e2e ## everything CI runs

release: packages ## build the optimised program
	$(CARGO) build --release --bin roomcast
