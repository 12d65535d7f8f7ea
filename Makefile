# `make demo` and `make test` set up what they need, once, and then start at once.
SHELL := /bin/bash
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
UV := .tools/bin/uv
APT := DEBIAN_FRONTEND=noninteractive apt-get
RECORDINGS := /usr/share/pocketsphinx/test/data/librivox/transcription
PORT ?= 8000

WSTEST := .tools/wstest/wstest
HEAVY := conformance-limits conformance-deflate

PEERS := gcc:gcc,libc6-dev nginx:nginx-light,libnginx-mod-nchan mosquitto:mosquitto \
	nats-server:nats-server npm:nodejs,npm

.PHONY: demo test check unit e2e resilience browser fuzz bench bench-peers bench-relay \
	bench-neighbours conformance $(HEAVY) setup clean help

help:
	@echo "make demo     start a server, play recorded speech, leave the page up (EXIT=1: end with a verdict)"
	@echo "make test     every check and test"
	@echo "make unit     the engine's tests alone, in virtual time"
	@echo "make resilience   lose, stall and refuse the speech provider, in real time (three minutes)"
	@echo "make fuzz     try the WebSocket parser and the commands with whatever may come (four minutes)"
	@echo "make bench    measure, and print a table"
	@echo "make conformance          Autobahn|Testsuite against every protocol of the server"
	@echo "make conformance-limits   its cases of big messages (a minute)"
	@echo "make conformance-deflate  its cases of compression (an hour)"
	@echo "make bench-relay  measure relaying to a speech engine, into benchmarks/RESULTS.md"
	@echo "make bench-neighbours  measure what one tenant notices of another (seven minutes)"
	@echo "make bench-peers  measure beside other servers, and write benchmarks/RESULTS.md"

demo: .stamps/python .stamps/speech
	@$(BIN)/roomcast demo --port $(PORT) $(if $(EXIT),--exit)

test: setup $(WSTEST) check
	@$(BIN)/pytest -n 2 --dist loadfile

check: .stamps/python
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q . && $(BIN)/mypy

unit: .stamps/python
	@$(BIN)/pytest -q tests/actors

e2e: setup
	@$(BIN)/pytest -q tests/e2e

browser: setup
	@$(BIN)/pytest -q tests/browser

resilience: setup
	@PACE=1 $(BIN)/pytest -v -o faulthandler_timeout=300 tests/e2e/test_resilience.py

fuzz: .stamps/python
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -q -o faulthandler_timeout=600 \
		tests/server/test_frames.py tests/server/test_deflate.py tests/e2e/test_commands.py

bench: .stamps/python .stamps/speech
	@$(BIN)/python -m benchmarks

conformance: setup $(WSTEST)
	@$(BIN)/pytest -v -s tests/conformance

$(HEAVY): conformance-%: .stamps/python $(WSTEST)
	@$(BIN)/python -m tests.conformance $*

bench-peers: .stamps/python .stamps/peers
	@$(BIN)/python -m benchmarks.peers $(ARGS)

bench-relay: .stamps/python
	@$(BIN)/python -m benchmarks.relay $(ARGS)

bench-neighbours: .stamps/python
	@$(BIN)/python -m benchmarks.neighbours $(ARGS)

setup: .stamps/python .stamps/speech .stamps/tools

# The environment, exactly as locked. Debian's python3 has no venv of its own.
.stamps/python: pyproject.toml uv.lock $(UV)
	@echo "setting up Python packages"
	@$(UV) sync --quiet --locked --all-extras
	@mkdir -p .stamps && touch $@

$(UV):
	@python3 -c "import ensurepip, venv" 2>/dev/null || { $(call install,python3-venv); }
	@python3 -m venv .tools && .tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# Recorded human speech.
.stamps/speech:
	@test -e $(RECORDINGS) || { $(call install,pocketsphinx-testdata); }
	@mkdir -p .stamps && touch $@

# What the tests drive: a browser (libatomic1 is for Playwright's driver), a Prometheus, and ffmpeg
# for the browser's microphone.
.stamps/tools:
	@for tool in chromium promtool prometheus ffmpeg; do command -v $$tool >/dev/null || missing=1; done; \
	PATH="$$PATH:/sbin" ldconfig -p | grep -q libatomic.so.1 || missing=1; \
	test -z "$$missing" || { $(call install,chromium fonts-dejavu-core libatomic1 prometheus ffmpeg); }
	@mkdir -p .stamps && touch $@

# It needs what only old systems have, so it may not be to be had: then its tests are skipped.
$(WSTEST): tests/conformance/build-wstest tests/conformance/wstest.txt | $(UV)
	@echo "building the conformance runner"
	@$< || echo "THE CONFORMANCE TESTS WILL BE SKIPPED" >&2

# Other servers to be measured beside, in an environment of their own. The results say which of
# them are missing; the next run tries again.
.stamps/peers: pyproject.toml uv.lock benchmarks/peers/node/package-lock.json $(UV)
	@echo "setting up other servers"; missing=; \
	for peer in $(PEERS); do \
		PATH="$$PATH:/usr/sbin" command -v $${peer%%:*} >/dev/null && continue; \
		packages=$$(echo $${peer#*:} | tr , ' '); \
		( $(call install,$$packages) ) || missing="$$missing $$packages"; \
	done; \
	UV_PROJECT_ENVIRONMENT=.venv-peers $(UV) sync --quiet --locked --only-group peers || \
		missing="$$missing the-Python-packages"; \
	npm ci --prefix benchmarks/peers/node --silent --ignore-scripts || \
		missing="$$missing the-Node-packages"; \
	if [ -n "$$missing" ]; then echo "could not be installed:$$missing" >&2; \
	else mkdir -p .stamps && touch $@; fi

# Installed as tools: the policy keeps Debian from starting their services.
define install
	echo "installing $(1)"; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "this needs the Debian packages $(1); install them, or run make as root" >&2; exit 1; fi; \
	policy=/usr/sbin/policy-rc.d; test -e $$policy && policy= || \
		{ printf '#!/bin/sh\nexit 101\n' >$$policy && chmod +x $$policy; }; \
	$(APT) update -qq && $(APT) install -y -qq --no-install-recommends $(1) >/dev/null; \
	status=$$?; rm -f $$policy; exit $$status
endef

clean:
	rm -rf $(VENV) .venv-peers benchmarks/peers/node/node_modules .tools .stamps .mypy_cache .ruff_cache .pytest_cache .hypothesis artifacts dist
