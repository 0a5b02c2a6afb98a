# Everything a developer types. Each target installs what it is missing.
.DEFAULT_GOAL := help
.PHONY: help packages client build demo test lint unit e2e chaos chaos-short backend python browser release

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
CLIENT := tests/e2e/node_modules/socket.io-client/dist/socket.io.esm.min.js
VENV := $(TARGET)/venv
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

packages:
	@.ci/packages

client: packages ## install the official Socket.IO client for the tests and the demo's page
	@cd tests/e2e && [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent
	@mkdir -p src/web/vendor
	@cmp -s $(CLIENT) src/web/vendor/socket.io.js || cp $(CLIENT) src/web/vendor/socket.io.js

build: packages client ## build roomcast, the client for the demo's page included
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

e2e: build ## end-to-end tests with the official client
	node tests/e2e/run.mjs --binary $(TARGET)/debug/roomcast

chaos: build ## an hour of seeded faults; SEED= MINUTES= TOPOLOGY= DURABILITY= change it, see docs/chaos.md
	$(CARGO) build -p roomcast-load --bin roomcast-chaos
	$(TARGET)/debug/roomcast-chaos --minutes $(or $(MINUTES),60) --topology $(or $(TOPOLOGY),standalone) \
		--durability $(or $(DURABILITY),memory) $(if $(SEED),--seed $(SEED))

# The same faults every time, so that a failure is this change's and not the draw's.
chaos-short: build ## two minutes of it, always the same faults unless SEED= says otherwise
	$(CARGO) build -p roomcast-load --bin roomcast-chaos
	$(TARGET)/debug/roomcast-chaos --minutes 1.5 --seed $(or $(SEED),1)

browser: build ## the demo's page in a headless Chromium
	@.ci/packages browser
	@cd tests/browser && [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent
	ROOMCAST_E2E_BINARY=$(TARGET)/debug/roomcast node --test tests/browser/page.test.mjs

# In the target folder: nothing of it is committed, and `cargo clean` removes it.
$(VENV)/.installed: tests/backend/requirements.txt tests/python/requirements.txt | packages
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(addprefix -r ,$^)
	@touch $@

backend: build $(VENV)/.installed ## the services on SQLite and PostgreSQL, and against their /openapi.json
	tests/backend/contract.sh $(TARGET)/debug/roomcast $(VENV)/bin/schemathesis sqlite
	tests/backend/postgres.sh tests/backend/contract.sh $(TARGET)/debug/roomcast $(VENV)/bin/schemathesis postgres
	tests/backend/postgres.sh $(CARGO) test --quiet --lib backend::

python: build $(VENV)/.installed ## the whole event table with python-socketio
	$(VENV)/bin/python tests/python/smoke.py $(TARGET)/debug/roomcast

test: lint unit e2e chaos-short backend python browser ## everything CI runs

release: packages client ## build the optimised program
	$(CARGO) build --release --bin roomcast
