# Every target is one command that also works by itself. Without a target: the list.
.DEFAULT_GOAL := help
.PHONY: help check fmt fmt-check clippy test-unit drift charts deny dependencies advisories crds docs prerequisites \
	cluster-binaries images up began install down test test-e2e demo demo-down bench

CARGO = cargo --locked
E2E = $(CARGO) run --quiet --package fairway-e2e --bin
CLUSTER = $(E2E) cluster --

# `make demo KUBE_CONTEXT=name REGISTRY=host/path`: an existing cluster instead of the embedded one.
export KUBE_CONTEXT
export REGISTRY

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 28

# --- to see it ---

demo: prerequisites ## tell the story of a release on a real cluster, and leave it running
	@$(CARGO) build --package fairway-e2e --bin demo
	@$(E2E) demo

demo-down: ## remove what the demo has made, and the embedded cluster
	@$(E2E) demo -- --down

bench: up install ## measure Fairway beside Argo Rollouts and print a table
	@$(CARGO) run --release --package fairway-e2e --bin bench

# --- to change it ---

check: fmt-check clippy test-unit drift charts deny dependencies ## everything that needs no cluster; run it before each commit

fmt: ## format the Rust code
	@cargo fmt --all

fmt-check:
	@cargo fmt --all --check

clippy:
	@$(CARGO) clippy --quiet --workspace --all-targets --all-features -- --deny warnings

test-unit: prerequisites ## run the tests that need no cluster
	@$(CARGO) test --quiet
	@$(CARGO) test --quiet --package fairway-e2e --lib
	@$(CARGO) test --quiet --package fairway-fixture-crm
	@$(CARGO) test --quiet --package fairway-loadgen

drift:
	@$(CARGO) run --quiet --package fairway-crds --bin crdgen -- --check charts/fairway-crds/templates
	@$(CARGO) run --quiet --package fairway-crds --bin apidoc -- --check docs/reference

charts: prerequisites ## lint and render the Helm charts
	@$(CLUSTER) build helm
	@scripts/check-charts

deny: ## check licences, duplicates and sources of the dependencies
	@scripts/cargo-deny --log-level error --all-features check --hide-inclusion-graph bans licenses sources

dependencies: ## check that the operator has no PostgreSQL client, the agent no Kubernetes client
	@scripts/check-dependencies

advisories: ## look for dependencies with known vulnerabilities; fetches the RustSec database from GitHub
	@scripts/cargo-deny --all-features check advisories

crds: ## write the manifests of the kinds from the types
	@$(CARGO) run --quiet --package fairway-crds --bin crdgen -- charts/fairway-crds/templates

docs: ## write the API reference from the types
	@$(CARGO) run --quiet --package fairway-crds --bin apidoc -- docs/reference

# --- to test it on a real cluster ---

test: test-unit up install test-e2e ## run every test: those without a cluster, then the user stories on the embedded one

# Six tests at a time within a file: most of the time they wait for pods, which leaves two cores half idle.
test-e2e:
	@$(CARGO) test --package fairway-e2e --tests -- --test-threads=$(or $(TEST_THREADS),6)

prerequisites: ## install the Debian packages that the embedded cluster needs
	@e2e/tools/prerequisites

cluster-binaries: prerequisites ## build Kubernetes and Helm from Go modules; the first time takes minutes
	@$(CARGO) build --package fairway-e2e --bin cluster
	@$(CLUSTER) build

images: prerequisites ## build the images of the tests and push them to the running cluster's registry
	@$(CLUSTER) images

up: began cluster-binaries ## start the embedded cluster with all images, or use the one that runs
	@$(CLUSTER) up
	@$(CLUSTER) images
	@echo "the cluster is up with all its images after $$(($$(date +%s) - $(BEGAN))) s" >&2

# When `up` began; as part of `test` that is not when make did.
began:
	@$(eval BEGAN := $(shell date +%s)):

install: prerequisites ## install Fairway into the running cluster with its charts, or upgrade it
	@$(CLUSTER) build helm
	@$(CLUSTER) install

down: ## remove the embedded cluster and all that it left on the machine
	@$(CLUSTER) down
