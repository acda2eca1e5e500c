# What people and CI run. `make` alone builds.
GO      ?= go
BIN     := bin
VERSION := $(shell git describe --tags --always 2>/dev/null || echo dev)
LDFLAGS := -s -w -X easel/cmd.buildVersion=$(VERSION)

.PHONY: build test lint bench live soak run golden

build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/easel .

test:
	$(GO) test -race ./...

golden:
	$(GO) test ./tui/... ./views/... -update

lint:
	gofumpt -l . | (! grep .)
	$(GO) vet ./...
	golangci-lint run ./...

# The figures of README.md.
bench:
	$(GO) test -run '^$$' -bench . -benchtime 1s ./...

# Against a real ComfyUI: EASEL_LIVE_COMFYUI=checkout EASEL_LIVE_PYTHON=interpreter make live
live:
	$(GO) test -count=1 -run 'Live' ./...

# What takes longer than the tests may: random kills over a running queue.
soak:
	EASEL_SOAK=1 $(GO) test -count=1 -timeout 60m -run 'Soak' -v ./cmd/...

run:
	$(GO) run .
