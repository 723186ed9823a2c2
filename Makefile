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
# The same bytes wherever the sources, the crates and the target folder are.
CRATES = $(or $(CARGO_HOME),$(HOME)/.cargo)
REMAPPED = --config 'target.$(TRIPLE).rustflags=["--remap-path-prefix=$(CURDIR)=/clusterd","--remap-path-prefix=$(CRATES)=/cargo","--remap-path-prefix=$(TARGET_DIR)=/target"]'
BINARY = $(TARGET_DIR)/$(TRIPLE)/release/clusterd
PROVED = $(TARGET_DIR)/symbols/$(TRIPLE)/release/clusterd

# What a static binary must not reach: these load the name service switch's modules and crash in them.
NSS = getaddrinfo|getpw[a-z_]*|getgrnam[a-z_]*|getgrgid[a-z_]*|getgrouplist|__nss_lookup[a-z_]*

.DEFAULT_GOAL := build
.PHONY: help build run test check fmt lint doc fuzzcheck static reproduce aarch64 bench hammer soak fuzz generate install uninstall deb clean

help: ## Say what each target does
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

build: ## Build the release binary
	$(CARGO) build --release --locked --bin clusterd $(REMAPPED)

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

# The proof needs the symbols, which the release build drops: it makes the same build with them, and strips a copy.
static: ## Prove that the release build is static and reaches no name service
	CARGO_PROFILE_RELEASE_STRIP=none $(CARGO) build --release --locked --bin clusterd $(REMAPPED) --target-dir $(TARGET_DIR)/symbols
	@needed=$$(readelf -d $(PROVED)) && ! printf '%s\n' "$$needed" | grep NEEDED || { echo 'static: the binary needs shared libraries'; exit 1; }
	@headers=$$(readelf -l $(PROVED)) && ! printf '%s\n' "$$headers" | grep INTERP || { echo 'static: the binary asks for a dynamic loader'; exit 1; }
	@nm $(PROVED) > $(TARGET_DIR)/symbols/names
	@test -s $(TARGET_DIR)/symbols/names || { echo 'static: the build with symbols has none'; exit 1; }
	@! grep -E ' ($(NSS))(@.*)?$$' $(TARGET_DIR)/symbols/names || { echo 'static: the symbols above reach the name service switch'; exit 1; }
	@strip -o $(TARGET_DIR)/symbols/stripped $(PROVED)
	@echo "static: no shared library, no loader, no name service; $$(stat -c %s $(TARGET_DIR)/symbols/stripped) bytes"

# Not in `make check`: two builds from nothing take as long as all the rest of it.
reproduce: ## Prove that two builds in two folders have the same bytes
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	for build in one another/folder; do \
	  mkdir -p $$folder/$$build; \
	  git ls-files -z | xargs -0 cp --parents -t $$folder/$$build; \
	  $(MAKE) --no-print-directory -C $$folder/$$build build CARGO_TARGET_DIR=$$folder/$$build/target; \
	done; \
	cmp $$folder/one/target/$(TRIPLE)/release/clusterd $$folder/another/folder/target/$(TRIPLE)/release/clusterd; \
	sha256sum < $$folder/one/target/$(TRIPLE)/release/clusterd | sed 's/ .*//; s/^/reproducible: two builds, one sha256: /'

# Not in `make check`: a fresh machine has no library of Rust for another processor.
aarch64: ## Check that it compiles for 64-bit ARM (needs that target of rustup)
	$(CARGO) check --locked --target aarch64-unknown-linux-gnu

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

# What is installed: the file here, its place below PREFIX, its mode.
SHARE = share/doc/clusterd
INSTALLED = \
  packaging/man/clusterd.1:share/man/man1/clusterd.1 \
  packaging/man/ecosystem.toml.5:share/man/man5/ecosystem.toml.5 \
  packaging/completions/clusterd.bash:share/bash-completion/completions/clusterd \
  packaging/completions/_clusterd:share/zsh/site-functions/_clusterd \
  packaging/completions/clusterd.fish:share/fish/vendor_completions.d/clusterd.fish \
  packaging/ecosystem.schema.json:share/clusterd/ecosystem.schema.json \
  ecosystem.example.toml:$(SHARE)/ecosystem.example.toml \
  README.md:$(SHARE)/README.md \
  CHANGELOG.md:$(SHARE)/CHANGELOG.md \
  LICENSE:$(SHARE)/LICENSE

install: build ## Install below DESTDIR/PREFIX (/usr/local): program, manual, completions
	install -D -m 755 $(BINARY) '$(DESTDIR)$(PREFIX)/bin/clusterd'
	@set -e; for pair in $(INSTALLED); do \
	  echo "install $${pair#*:}"; install -D -m 644 "$${pair%%:*}" '$(DESTDIR)$(PREFIX)'/"$${pair#*:}"; \
	done
	@sed -i '1s|^#:schema .*|#:schema $(PREFIX)/share/clusterd/ecosystem.schema.json|' '$(DESTDIR)$(PREFIX)/$(SHARE)/ecosystem.example.toml'

uninstall: ## Remove what `make install` put there; no app, no log, no state
	rm -f '$(DESTDIR)$(PREFIX)/bin/clusterd'
	@for pair in $(INSTALLED); do rm -f '$(DESTDIR)$(PREFIX)'/"$${pair#*:}"; done
	@for folder in $(SHARE) share/clusterd; do \
	  test ! -d '$(DESTDIR)$(PREFIX)'/$$folder || rmdir '$(DESTDIR)$(PREFIX)'/$$folder; \
	done

deb: build ## Build a Debian package (needs cargo-deb)
	@$(CARGO) deb --version >/dev/null 2>&1 || { echo 'deb: cargo-deb is missing: cargo install cargo-deb --locked'; exit 1; }
	$(CARGO) deb --no-build --no-strip --locked --target $(TRIPLE)

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf build
