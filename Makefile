# Targets: `make` alone lists them.

VERSION := $(patsubst v%,%,$(shell git describe --tags --always --dirty 2>/dev/null || echo devel))
LDFLAGS := -s -w -X main.version=$(VERSION)
GOFLAGS_TRIMMED := $(shell go env GOFLAGS) -trimpath
FUZZTIME ?= 20s
SEEDS ?= 30000
ROUNDS ?= 3
MATRIX ?= 5
REV ?= HEAD

.DEFAULT_GOAL := help
.PHONY: help build run test js pictures race fuzz soak lint bench bench-full bench-before bench-micro cover release release-check ci

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

build: ## build bin/parley
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/parley ./cmd/parley

run: build ## build and serve on 127.0.0.1:9090, with a chat page on 127.0.0.1:9091
	bin/parley serve

# These compile with the flags of make build, and so once.
test lint: export CGO_ENABLED = 0
test lint: export GOFLAGS = $(GOFLAGS_TRIMMED)

test: build lint ## run all tests, those of the nested modules too
	@bash .ci/test

js: build ## build the client in TypeScript (clients/js/dist) and run its tests
	cd clients/js && npm ci --no-audit --no-fund && PARLEY=$(CURDIR)/bin/parley npm test

pictures: ## make the pictures of the documents (docs/images) anew; needs Chromium
	cd bench && PICTURES=$(CURDIR)/docs/images go test -count=1 ./interop -run TestPicture

race: ## run the tests under the race detector
	@bash .ci/test race

fuzz: ## fuzz every target for FUZZTIME (20s)
	@bash .ci/fuzz $(FUZZTIME)

soak: ## simulate SEEDS (30000) worlds, test at full scale, verify's faults with MATRIX (5) times the seeds, kill workers of 5,000 clients for 5 minutes
	go test -tags invariants -timeout 0 ./engine/sim -run 'TestSeeds|TestFleetSeeds' -seeds $(SEEDS)
	go test -timeout 0 ./engine/internal/order -run 'TestOrder|TestEpochsAreKept' -seeds $(SEEDS)
	go test -tags invariants -timeout 0 ./engine ./engine/cluster/... ./engine/conformance
	go test -timeout 0 ./cmd/parley/verify -parallel 2 -matrix $(MATRIX)
	cd bench && go test -timeout 0 ./interop -kill-for 5m -kill-clients 5000

lint: ## gofmt, go vet, and the rules of docs/tidy_test.go
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	go test -count=1 ./docs/...

bench: ## measure parley beside its peers (SCENARIO=room PEERS=gws,bun ROUNDS=3), 10 minutes at most
	cd bench && go run . -rounds $(ROUNDS) -scenario '$(SCENARIO)' -peers '$(PEERS)'

bench-full: ## the same with all scenarios and all peers, for an hour
	cd bench && go run . -full -rounds $(ROUNDS) -scenario '$(SCENARIO)' -peers '$(PEERS)'

bench-before: ## compare with an earlier revision (REV=HEAD SCENARIO=room ROUNDS=3), for 20 minutes
	cd bench && go run . -before '$(REV)' -rounds $(ROUNDS) -scenario '$(SCENARIO)'

bench-micro: ## run the micro-benchmarks
	go test -run '^$$' -bench . -benchmem ./...

cover: ## write coverage.html
	go test -coverpkg=./... -coverprofile=coverage.out ./...
	go tool cover -html=coverage.out -o coverage.html
	@go tool cover -func=coverage.out | tail -1

# The version is that of the tag (.ci/release/main.go), unless the command line gives one.
RELEASE := cd .ci/release && go run . -repo '$(CURDIR)' $(if $(findstring command,$(origin VERSION)),-version '$(VERSION)')

release: ## build archives, packages and sums of the last commit into bin/release (VERSION=1.2.3); publishes nothing
	$(RELEASE) -out '$(CURDIR)/bin/release'

release-check: ## build a release twice, in two folders and without shared compiled packages, and compare the sums
	$(RELEASE) -check

ci: ## what continuous integration does
	bash .ci/run
