# The doors of this repository. `make verify` never writes; `make fix` may.
# Recipes that a fresh machine needs: a Rust toolchain, and python3 with venv for `make test`.

.DEFAULT_GOAL := help
.PHONY: help run test verify fix wire rows fuzz nemesis nemesis-proof bench tidy clients ops image image-test references third-party

CARGO ?= cargo
PYTHON ?= python3
SECONDS ?= 60
SEED ?= 1
FUZZ_TARGETS := xml_reader stream_machine jid
VENV := .venv
ALTHING := target/debug/althing
REFERENCES := config:reference/config.md single:config/single.toml cluster:config/cluster.toml metrics:reference/metrics.md \
              log-fields:reference/log-fields.md

# `cargo fmt` does not see files that a macro declares.
MODULES = $(shell find server/src/modules -name '*.rs')

# Tables between marks in pages that are written by hand.
TABLES := xeps:README.md queues:ARCHITECTURE.md

help: ## list these doors
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(ALTHING) ## build, then run three nodes as one server with the accounts alice and bob; Ctrl-C stops them
	$(ALTHING) dev --nodes 3 --demo --data .dev/cluster

test: $(ALTHING) $(VENV)/.installed ## run all tests: Rust, wire scripts, slixmpp, and clients under five faults
	$(CARGO) test --workspace
	$(MAKE) nemesis SEED=13 SECONDS=60
	$(VENV)/bin/python -m pytest tests/python -q

verify: ## check format, lints, the tidy rules, and dependencies when cargo-deny is installed
	$(CARGO) fmt --all --check
	rustfmt --check $(MODULES)
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test -q -p althing-tests --test tidy
	@if command -v cargo-deny >/dev/null; then \
		$(CARGO) deny check bans licenses sources; \
	else \
		echo "skipped: cargo-deny is not installed (cargo install --locked cargo-deny)"; \
	fi

fix: ## format, apply lint suggestions, write the reference pages anew
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all
	rustfmt $(MODULES)
	$(MAKE) references

references: $(ALTHING)
	@mkdir -p deploy/reference deploy/config
	@for pair in $(REFERENCES); do \
		$(ALTHING) reference $${pair%%:*} > deploy/$${pair#*:}.new && \
		mv deploy/$${pair#*:}.new deploy/$${pair#*:} || exit 1; \
	done
	@for pair in $(TABLES); do \
		$(ALTHING) reference $${pair%%:*} > $${pair#*:}.table && \
		awk -v name=$${pair%%:*} -v table=$${pair#*:}.table '\
			index($$0, "<!-- End of what `althing reference " name "` made") { inside = 0 } !inside { print } \
			index($$0, "<!-- Made by `althing reference " name "`") { inside = 1; while ((getline row < table) > 0) print row }' \
			$${pair#*:} > $${pair#*:}.new && mv $${pair#*:}.new $${pair#*:} && rm $${pair#*:}.table || exit 1; \
	done

# What is linked into the binary on Linux. The text above the table is written by hand.
third-party: ## write the list of libraries in deploy/THIRD-PARTY.md anew
	@sed '/^|---/q' deploy/THIRD-PARTY.md > deploy/THIRD-PARTY.md.new
	@$(CARGO) tree --locked -p althing-server -e normal --target x86_64-unknown-linux-gnu --no-dedupe \
		--prefix none --format '| {p} | {l} | {r} |' | sed 's/ (proc-macro)//' | grep -v '^| althing-' | LC_ALL=C sort -u \
		>> deploy/THIRD-PARTY.md.new
	@mv deploy/THIRD-PARTY.md.new deploy/THIRD-PARTY.md

wire: $(ALTHING) ## run the wire scripts only
	$(CARGO) test -p althing-tests --test wire

tidy: ## let the house read itself
	$(CARGO) test -q -p althing-tests --test tidy

rows: ## list the behaviours that are owed, each with the tests that name it
	$(CARGO) test -q -p althing-tests --test rows -- --nocapture

fuzz: ## fuzz each target for SECONDS (default 60); needs the nightly toolchain
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	@for target in $(FUZZ_TARGETS); do \
		echo "== $$target for $(SECONDS) s"; \
		mkdir -p proto/fuzz/corpus/$$target; \
		(cd proto && $(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$(SECONDS) -max_len=65536) || exit 1; \
	done

nemesis: $(ALTHING) ## clients on three nodes under faults that SEED chooses, for SECONDS (default 60); then all they saw is checked
	@ALTHING_NEMESIS_SEED=$(SEED) ALTHING_NEMESIS_SECONDS=$(SECONDS) $(CARGO) test -q -p althing-tests --test nemesis

# Each must be found, by what it breaks: breaches that the server shows with no mistake are none of these.
NEMESIS_FAULTS := ack-before-commit:wrong_count drain-deletes:lost handled-not-committed:wrong_count

nemesis-proof: ## make mistakes on purpose, in a build of its own, and see that `make nemesis` finds each
	$(CARGO) build -p althing-server --bin althing --features faults
	@mkdir -p target/faults
	cp $(ALTHING) target/faults/althing
	$(CARGO) build -p althing-server --bin althing
	@for pair in $(NEMESIS_FAULTS); do \
		fault=$${pair%%:*}; breach=$$(echo $${pair#*:} | tr _ ' '); log=target/faults/$$fault.log; echo "== $$fault"; \
		if ALTHING_FAULT=$$fault ALTHING_BIN=$(CURDIR)/target/faults/althing ALTHING_NEMESIS_SEED=$(SEED) \
			ALTHING_NEMESIS_SECONDS=$(SECONDS) $(CARGO) test -q -p althing-tests --test nemesis > $$log 2>&1; \
		then echo "NOT found: $$fault"; exit 1; fi; \
		grep '^breaches in all' $$log | grep "\"$$breach\"" || { echo "NOT found by $$breach: $$fault"; exit 1; }; \
		grep '^nemesis ' $$log; \
	done

bench: ## run the benchmarks
	$(CARGO) bench -p althing-server -p althing-cluster

clients: $(ALTHING) ## drive profanity, xmpp.js, Strophe.js, Converse (in Chromium) and biboumi against a fresh node; installs them when missing
	tests/clients/run

ops: $(VENV)/.ops ## check deploy/ and k8s/: manifests, alerts, dashboard, compose file; installs what is missing
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m pytest tests/ops -q

image: ## build the runtime image althing:dev around a static release binary
	deploy/image/build

image-test: $(VENV)/.ops ## build the image, run three containers as a cluster, let two clients talk (root, Docker)
	tests/ops/tools image
	$(VENV)/bin/python tests/image/run.py

# Cargo knows best what has changed, so it is always asked.
.PHONY: $(ALTHING)
$(ALTHING):
	$(CARGO) build -p althing-server --bin althing

# Made anew when the pins change.
$(VENV)/.installed: tests/python/requirements.txt
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "python3 with venv is needed: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/python/requirements.txt
	@touch $@

$(VENV)/.ops: tests/ops/requirements.txt tests/ops/tools $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/ops/requirements.txt
	PYTHON=$(VENV)/bin/python tests/ops/tools
	@touch $@
