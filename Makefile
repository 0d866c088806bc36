# Every target is one command that also works by itself. Without a target: the list.
.DEFAULT_GOAL := help
.PHONY: help demo demo-down bench check fmt fmt-check cycles faults clippy test-unit drift charts deny dependencies advisories crds docs \
	test test-e2e test-long prerequisites cluster-binaries images up began install down

# Targets that build, start and test depend on their order.
.NOTPARALLEL:

CARGO = cargo --locked
# Where cargo puts programs. They are started from there, and not by `cargo run`, where another one may be compiling.
BUILT = $(or $(CARGO_TARGET_DIR),target)/debug
TOOLS = $(CARGO) run --quiet --package fairway-tools --
RUN = $(CARGO) run --quiet --bin
CLUSTER = $(RUN) cluster --

# `make demo KUBE_CONTEXT=name REGISTRY=host/path`: an existing cluster instead of the embedded one.
export KUBE_CONTEXT
export REGISTRY
# `make test TEST_THREADS=2`: fewer tests at a time, on a machine that has other work.
export TEST_THREADS

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 28

# --- to see it ---

demo: prerequisites ## show the story of a release on a real cluster, and leave it running
	@$(call build_beside_each_other,$(CLUSTER) images --story --no-push)
	@$(RUN) demo

demo-down: ## remove what the demo created, and the embedded cluster
	@$(RUN) demo -- --down

bench: up install ## measure Fairway beside Argo Rollouts and print a table
	@$(RUN) bench

# --- to change it ---

check: fmt-check cycles faults clippy test-unit drift charts deny dependencies ## everything that needs no cluster; run it before each commit

fmt: ## format the Rust code
	@cargo fmt --all

fmt-check:
	@cargo fmt --all --check

cycles: ## check that no source files import each other in a circle
	@scripts/check-cycles

faults: ## print the faults of the first version, and the complaints about other tools, that no test shows to be gone
	@scripts/check-faults
	@scripts/check-complaints

clippy:
	@$(CARGO) clippy --quiet --workspace --all-targets --all-features -- --deny warnings
	@$(CARGO) clippy --quiet --package fairway-e2e --test '*' -- --deny warnings

test-unit: prerequisites ## run the tests that need no cluster
	@$(CARGO) test --quiet --tests

drift:
	@$(RUN) crdgen -- --check charts/fairway-crds/templates
	@$(RUN) apidoc -- --check docs/reference

charts: prerequisites ## lint and render the Helm charts, and build an App with kustomize
	@$(TOOLS) helm kubectl
	@scripts/check-charts
	@scripts/check-kustomize

deny: ## check licences, duplicates and sources of the dependencies
	@scripts/cargo-tool deny --log-level error --all-features check --hide-inclusion-graph bans licenses sources

dependencies: ## check that the operator has no PostgreSQL client, the agent no Kubernetes client
	@scripts/check-dependencies

advisories: ## look for dependencies with known vulnerabilities; fetches the RustSec database from GitHub
	@scripts/cargo-tool deny --all-features check advisories

crds: ## write the manifests of the kinds from the types
	@$(RUN) crdgen -- charts/fairway-crds/templates

docs: ## write the API reference from the types, and the tables of the ladder from its rungs
	@$(RUN) apidoc -- docs/reference
	@UPDATE_DOCS=1 $(CARGO) test --quiet --package fairway-plan --test ladder

# --- to test it on a real cluster ---

test: up install test-e2e ## run every test that needs a cluster, on the embedded one

test-e2e: ## run them on the cluster that runs, or on that of KUBE_CONTEXT: make test-e2e TESTS=part-of-a-name
	@$(RUN) e2e -- test $(TESTS)

test-long: prerequisites $(if $(filter-out simulator arm64 fuzz versions databases,$(PART)),up install) ## run what takes too long for CI: PART=name; without it, list the parts
	@$(RUN) e2e -- long $(PART)

prerequisites: ## install the Debian packages that the embedded cluster needs
	@e2e/tools/prerequisites

cluster-binaries: prerequisites ## build Kubernetes and Helm from Go modules; the first time takes minutes
	@$(CARGO) build --quiet --package fairway-tools
	@$(BUILT)/fairway-tools

images: prerequisites ## build the images of the tests and push them to the running cluster's registry
	@$(CLUSTER) images

up: began prerequisites ## start the embedded cluster with all images, or use the one that runs
	@$(call build_beside_each_other,$(CLUSTER) images --no-push)
	@$(CLUSTER) up
	@$(CLUSTER) load
	@echo "the cluster is up with all its images after $$(($$(date +%s) - $(BEGAN))) s" >&2

# When `up` began; as part of `test` that is not when make did.
began:
	@$(eval BEGAN := $(shell date +%s)):

install: prerequisites ## install Fairway into the running cluster with its charts, or upgrade it
	@$(TOOLS) helm
	@$(CLUSTER) install

down: ## remove the embedded cluster and all that it left on the machine
	@$(CLUSTER) down

# Kubernetes and Helm from Go, and beside them what the command builds from Rust, since neither keeps two processors busy.
# Go has by far the most to do, so it begins as soon as the few crates are compiled that call it.
define build_beside_each_other
$(CARGO) build --quiet --package fairway-tools && { \
	$(BUILT)/fairway-tools & programs=$$!; \
	$(1) || { kill $$programs; exit 1; }; \
	wait $$programs; }
endef
