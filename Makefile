# The commands of the repository. Everything is built in one profile (release) into one directory outside the checkout, so that
# RocksDB's C++ is compiled once (about 16 minutes on two cores) and then shared by build, clippy, tests and benches.

SHELL := /bin/sh
CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)
export CARGO_TARGET_DIR ?= $(CACHE)/fog/target
export CARGO_TERM_PROGRESS_WHEN ?= never
# PATH of a rustup that was just installed and whose shell was not restarted.
export PATH := $(PATH):$(HOME)/.cargo/bin

NAME ?=
N ?= 8
FUZZ_SECONDS ?= 600

.PHONY: help demo test bench fuzz miri setup fmt lint build

help: ## what can be made
	@echo 'make <target>'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12
	@echo
	@echo '  builds go to $(CARGO_TARGET_DIR)'

demo: build ## build, start a network of real processes here, show every system on it, take it down [N=8]
	$(CARGO_TARGET_DIR)/release/fog testnet demo -n $(N)

test: setup ## every check and every test, `fog testnet demo` among them
	./scripts/test.sh

bench: setup ## compare with the rivals; writes bench-results.json [NAME=sphinx_unwrap]
	./scripts/bench.sh $(NAME)

fuzz: setup ## run each fuzz target for ten minutes (needs nightly and cargo-fuzz) [NAME=…] [FUZZ_SECONDS=600]
	./scripts/fuzz.sh $(FUZZ_SECONDS) $(NAME)

miri: setup ## look for undefined behaviour in fog-x25519 (needs nightly with miri; about ten minutes)
	./scripts/miri.sh

# `--test tidy` is there for its dev-dependencies: with them, features (and so libp2p and a hundred other crates) are those of
# `make test`, and nothing is compiled twice.
build: setup ## the program, in release/ of the target directory
	cargo build --release --locked --bin fog --test tidy

lint: ## formatting and clippy, as `make test` checks them
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

fmt: ## format the code
	cargo fmt --all

setup: ## install what a build needs, or say what to install
	@./scripts/setup.sh
