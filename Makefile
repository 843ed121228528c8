.DEFAULT_GOAL := help
.PHONY: help setup up down test check bench images docs lock

help:            ## what there is to run
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup:           ## make .venv match the lock files (fast when it does)
	@scripts/setup

up: setup        ## bring the stack up here and talk to a model
	@.venv/bin/stackctl up

down:            ## take the stack down
	@.venv/bin/stackctl down

test: setup      ## every test this machine can run
	@scripts/test

check: setup     ## lint, types, import rules, docs
	@scripts/check

bench: setup     ## the benchmarks of docs/benchmarks.md, peers in the same run
	@scripts/bench

images: setup    ## build the container images
	@scripts/images

docs: setup      ## regenerate the reference pages
	@scripts/docs

lock:            ## re-resolve requirements/*.in
	@scripts/lock
