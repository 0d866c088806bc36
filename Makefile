# Every target is one command that also works by itself. Without a target: the list.
.DEFAULT_GOAL := help
.PHONY: help prerequisites cluster-binaries images up down

CLUSTER = cargo run --quiet --locked --package fairway-e2e --bin cluster --

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 28

prerequisites: ## install the Debian packages that the embedded cluster needs
	@e2e/tools/prerequisites

cluster-binaries: prerequisites ## build Kubernetes and Helm from Go modules; the first time takes minutes
	@$(CLUSTER) build

images: prerequisites ## build the images of the tests and push them to the running cluster's registry
	@$(CLUSTER) images

up: cluster-binaries ## start the embedded cluster with all images, or use the one that runs
	@$(CLUSTER) up
	@$(CLUSTER) images

down: ## remove the embedded cluster and all that it left on the machine
	@$(CLUSTER) down
