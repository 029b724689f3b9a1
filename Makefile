# Every target says what it does: `make` prints the list.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
# Tools are pinned in a module of their own, so that their hundreds of dependencies stay out of the program's.
TOOL := $(GO) tool -modfile=tools/go.mod
# Runs a command with a Docker engine: the one that answers, or one that it installs, starts, and ends afterwards.
WITH_ENGINE := scripts/engine.sh with --

VERSION ?= $(patsubst v%,%,$(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null || echo v0.0.0-dev))
REVISION ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
# The commit's own date, not the clock's: the same commit gives the same bytes.
DATE ?= $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.revision=$(REVISION) -X main.date=$(DATE)
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# What go test gets besides -race. Results that depend on an engine must not come from the cache. More packages at once
# than a small machine has processors, and the longest first: tests on an engine wait most of the time.
TESTFLAGS ?= -count=1 -shuffle=on -timeout=20m -p=$(shell n=$$(nproc); echo $$((n > 3 ? n : 3)))
PACKAGES ?= ./test/integration ./test/... ./...
FUZZTIME ?= 30s
# go test without -race, as programs are built: what was compiled for them serves.
PLAINTEST := CGO_ENABLED=0 GOFLAGS='$(GOFLAGS) -trimpath' $(GO) test

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Try it

.PHONY: demo
demo: build ## See it work: engine, load balancers, agent, five containers, 2,000 requests (half a minute; HOLD=1 waits)
	@CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -o bin/demo ./test/demo
	@$(WITH_ENGINE) bin/demo $(if $(HOLD),--hold)

##@ Build

.PHONY: build
build: ## Build bin/berth and bin/elbsim: static, with the version in them
	$(GOBUILD) -o bin/berth ./cmd/agent
	$(GOBUILD) -o bin/elbsim ./cmd/elbsim

.PHONY: package
package: ## Build dist/berth_VERSION_ARCH.deb for amd64 and arm64: the same bytes each time
	@VERSION='$(VERSION)' REVISION='$(REVISION)' DATE='$(DATE)' scripts/package.sh

.PHONY: image
image: ## Build the image berth:VERSION: the binary and the build machine's CA certificates, nothing else
	@VERSION='$(VERSION)' REVISION='$(REVISION)' DATE='$(DATE)' $(WITH_ENGINE) scripts/image.sh

.PHONY: clean
clean: ## Remove what builds and test runs left: bin, dist, the e2e test's Debian root, test images
	rm -rf bin dist .cache/e2e
	@scripts/engine.sh forget

##@ Check

.PHONY: check
check: ## All that needs no Docker and no network: format, vet, lint, modules, both architectures, unit tests
	@scripts/check.sh

.PHONY: fmt
fmt: ## Format every Go file
	$(TOOL) gofumpt -w .

.PHONY: lint
lint: ## Run the linters, the import rules among them
	$(TOOL) golangci-lint run ./...

##@ Test

.PHONY: test
test: ## Unit and integration tests with -race, on a real Docker engine (started if none answers) and elbsim
	@scripts/need.sh gcc curl
	@$(WITH_ENGINE) $(TOOL) gotestsum --format pkgname -- -race $(TESTFLAGS) $(PACKAGES)

.PHONY: integration
integration: ## Only the tests on a real Docker engine
	@scripts/need.sh gcc curl
	@$(WITH_ENGINE) $(TOOL) gotestsum --format testname -- -race $(TESTFLAGS) ./test/...

.PHONY: model
model: ## Play MODEL (2000) random lives on an engine and an AWS that misbehave; find every seeded bug, too
	$(PLAINTEST) -count=1 -timeout=30m -run '^Test(Model|Mutants)$$' ./test/model -rapid.checks=$${MODEL:-2000} -rapid.nofailfile -model.mutants

.PHONY: chaos
chaos: ## Random lives of 20 containers, engine restarts, cut streams, restarted agents, under load (CHAOS=30s, at most 10m)
	@scripts/need.sh gcc
	@$(WITH_ENGINE) $(GO) test -race -count=1 -v -timeout=15m ./test/chaos -chaos.for=$(or $(CHAOS),30s) -chaos.seed=$(or $(SEED),0)

.PHONY: crash
crash: ## Kill the agent at CRASH (200) random instants while containers come and go; exact after each
	@scripts/need.sh gcc
	@BERTH_CRASH_INSTANTS=$(or $(CRASH),200) $(WITH_ENGINE) $(GO) test -race -count=1 -v -timeout=2h ./test/crash

.PHONY: mutants
mutants: ## Seed each bug that a //mutant: comment marks, ten times, and count the random lives until the model finds it
	$(PLAINTEST) -count=1 -v -timeout=60m -run '^TestMutants$$' ./test/model -model.mutants -model.mutanttimes=10

.PHONY: known-faults
known-faults: ## Run the tests that are skipped for a known fault, and list them: one that passes is an error
	@scripts/need.sh gcc
	@BERTH_KNOWN_FAULTS=1 $(GO) test -count=1 -v -timeout=20m -run '^Test(Marks|EachStillFails)$$' ./test/knownfault

.PHONY: faults
faults: ## One AWS call in five fails, in every way, for FAULTS (2m) of churn on a real engine; exact within 90 s of the end
	@scripts/need.sh gcc
	@$(WITH_ENGINE) $(GO) test -race -count=1 -v -timeout=20m -run '^TestFaults$$' ./test/aws -faults.for=$(or $(FAULTS),2m) -faults.seed=$(or $(SEED),0)

.PHONY: fleet
fleet: ## Simulate accounts of FLEET hosts (100,1000) in fake time: deploy, cold start, outage, a steady day
	@for n in $${FLEET:-100 1000}; do \
	  $(GO) test -count=1 -v -timeout=3h -run TestFleet ./test/fleet -fleet.hosts=$$n -fleet.only= | grep -E 'fleet_test.go|^(FAIL|panic|ok)'; \
	done

.PHONY: e2e
e2e: ## The package on a booted Debian with systemd, in a container: install, boot, upgrade, shutdown, purge (root)
	@scripts/need.sh debootstrap dpkg-deb
	@export BERTH_E2E=1 CGO_ENABLED=0 GOFLAGS='$(GOFLAGS) -trimpath'; $(WITH_ENGINE) $(GO) test -count=1 -timeout=15m -v ./test/e2e/...

.PHONY: bench
bench: build ## Measure event to call beside the least that any agent must do (six minutes; BENCHFLAGS='-n 30' for less)
	@CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -o bin/bench ./test/bench
	@$(WITH_ENGINE) bin/bench $(BENCHFLAGS)

.PHONY: fuzz
fuzz: ## Run every fuzz test for FUZZTIME (30s), two at a time
	@FUZZTIME=$(FUZZTIME) scripts/fuzz.sh

.PHONY: nightly
nightly: ## The long runs, each named and timed: model, mutants, known-faults, crash, chaos, faults, fuzz, fleet (hours; ONLY='model fuzz')
	@scripts/nightly.sh $(ONLY)
