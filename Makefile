# Benchmarks, each against references that run beside it on the same machine:
# see docs/performance.md. The peer needs Node 20 and its packages.

.PHONY: bench bench-intake bench-apply bench-idle bench-scale bench-short bench-code

bench: bench/peer/node_modules ## all eight goals; takes a quiet machine for about an hour
	go run ./cmd/bench

bench-intake bench-apply: bench/peer/node_modules
bench-intake bench-apply bench-idle bench-scale: ## one part
	go run ./cmd/bench --only $(@:bench-%=%)

bench-short: ## a minute: does the benchmark itself work?
	go run ./cmd/bench --short

bench-code: ## the code by itself, in benchstat's form
	go test ./internal/webhooks ./internal/orders -run '^$$' -bench . -benchmem -count 6

bench/peer/node_modules: bench/peer/package.json bench/peer/package-lock.json
	cd bench/peer && npm install --omit=dev
	touch $@
