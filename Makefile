# Everything that people and CI run. `make help` lists it.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
BENCH_ARGS ?=
SOAK_SECONDS ?= 600
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))

# Where cargo puts things: it follows CARGO_TARGET_DIR and .cargo/config.toml, so it is asked.
TARGET_DIR = $(shell $(CARGO) metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
TRIPLE = x86_64-unknown-linux-gnu
BINARY = $(TARGET_DIR)/$(TRIPLE)/release/clusterd

# What a static binary must not reach: these load the name service switch's modules and crash in them.
NSS = getaddrinfo|getpw[a-z_]*|getgrnam[a-z_]*|getgrgid[a-z_]*|getgrouplist|__nss_lookup[a-z_]*

.DEFAULT_GOAL := build
.PHONY: help build run test check fmt lint doc fuzzcheck static bench hammer soak fuzz generate install clean

help: ## Say what each target does
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

build: ## Build the release binary
	$(CARGO) build --release --locked --bin clusterd

run: build ## Run the example: four workers on one port
	PATH="$(dir $(BINARY)):$$PATH" $(BINARY) ecosystem.example.toml

test: ## Run every test; says what was skipped for want of a runtime
	@CARGO='$(CARGO)' ./tests/run.sh

check: fmt lint doc test fuzzcheck static ## Exactly what CI runs

fmt:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items

# The proof needs symbols, which the release build drops: the same profile is built once with them.
static: build ## Prove that the binary is static and reaches no name service
	@file_type=$$(readelf -d $(BINARY) | grep -c NEEDED || true); \
	  test "$$file_type" = 0 || { echo 'static: the binary needs shared libraries:'; readelf -d $(BINARY) | grep NEEDED; exit 1; }
	@! readelf -l $(BINARY) | grep -q INTERP || { echo 'static: the binary asks for a dynamic loader'; exit 1; }
	CARGO_PROFILE_RELEASE_STRIP=none $(CARGO) build --release --locked --bin clusterd --target-dir $(TARGET_DIR)/symbols
	@nm $(TARGET_DIR)/symbols/$(TRIPLE)/release/clusterd > $(TARGET_DIR)/symbols/names
	@test -s $(TARGET_DIR)/symbols/names || { echo 'static: the build with symbols has none'; exit 1; }
	@! grep -E ' ($(NSS))(@.*)?$$' $(TARGET_DIR)/symbols/names || { echo 'static: the symbols above reach the name service switch'; exit 1; }
	@echo "static: no shared library, no loader, no name service; $$(stat -c %s $(BINARY)) bytes"

bench: build ## Measure against PM2, Node's cluster module and bare Node (needs node, npm, python3)
	$(CARGO) build --release --locked --example load --example tiny
	python3 benches/bench.py --clusterd $(BINARY) --load $(TARGET_DIR)/$(TRIPLE)/release/examples/load --tiny $(TARGET_DIR)/$(TRIPLE)/release/examples/tiny $(BENCH_ARGS)

hammer: ## Reload under load, 20 reloads a case
	CLUSTERD_HAMMER_RELOADS=20 $(CARGO) test --release --locked --test reload --test runtimes -- --nocapture

soak: ## Reload, scale and kill under load for SOAK_SECONDS (600)
	SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --release --locked --test soak -- --nocapture

fuzzcheck: ## Fuzz every parser for a minute, all at once, with cargo alone
	CLUSTERD_FUZZ_SECONDS=60 $(CARGO) test --locked --lib fuzz:: -- --test-threads 16 --nocapture

# cargo-fuzz passes options that stable Rust takes with RUSTC_BOOTSTRAP only. What it finds goes into
# fuzz/regressions/TARGET, which every `cargo test` runs.
fuzz: ## Fuzz by libFuzzer, FUZZ_SECONDS (600) each (needs cargo-fuzz)
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo 'fuzz: cargo-fuzz is missing: cargo install cargo-fuzz; without it: make fuzzcheck'; exit 1; }
	@for target in $(FUZZ_TARGETS); do \
	  mkdir -p fuzz/corpus/$$target fuzz/regressions/$$target; \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target fuzz/regressions/$$target \
	    -- -max_total_time=$(FUZZ_SECONDS) -max_len=8192 || exit 1; \
	done

generate: ## Make the files below packaging/ anew that the program makes
	CLUSTERD_GENERATE=1 $(CARGO) test --locked --test packaging what_is_generated_is_fresh

install: build ## Install below DESTDIR/PREFIX (/usr/local)
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/clusterd
	install -D -m 644 ecosystem.example.toml $(DESTDIR)$(PREFIX)/share/doc/clusterd/ecosystem.example.toml
	install -D -m 644 README.md $(DESTDIR)$(PREFIX)/share/doc/clusterd/README.md

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf build
