# Every target installs what it needs first. `make` alone lists them.

CARGO ?= cargo
CAUSERIE = target/release/causerie
VENV = .venv

.DEFAULT_GOAL := help
.PHONY: help deps build models demo test lint fmt bench clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

deps: ## install the missing system packages
	@scripts/install-deps build

build: deps ## build target/release/causerie
	$(CARGO) build --release --locked

models: build ## fetch the default models (1.3 GB, once)
	$(CAUSERIE) models pull

demo: models ## ask a recorded question, hear the answer: out/reply.wav
	@scripts/demo

lint: deps ## formatting, clippy, and licences if cargo-deny is there
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --all-features check; \
	else echo "cargo-deny is not installed; licences and sources were not checked"; fi

fmt: ## format the code
	$(CARGO) fmt --all

test: ## check the format and the lints, and run every test
	@scripts/test

bench: models ## measure latency and speed; one table
	@scripts/bench

clean: ## remove what was built; the models stay
	$(CARGO) clean
	rm -rf out $(VENV) $(VENV)-clients tests/node_modules
