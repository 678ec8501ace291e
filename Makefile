# The two commands of the README, and what a developer runs in between. Each installs what it needs.
.PHONY: run test check bench fuzz clean

# The driver suites, against a real guest.
run: node_modules/.installed
	node dist/cli/main.js run

# Lint, types, unit tests, then everything that needs QEMU.
test: node_modules/.installed
	npm run lint
	npm test

# Seconds, no QEMU: before every commit.
check: node_modules/.installed
	npm run lint
	npm run types
	npm run unit

# Ratios, measured in one run.
bench: node_modules/.installed
	npm run bench

# Hostile rings and messages by chance, ROOTPORT_FUZZ_SECONDS (60) or ROOTPORT_FUZZ_STEPS for each target. What is new
# is written to test/fuzz/found, which Git ignores; ROOTPORT_FUZZ_KEEP=1 adds it to test/fuzz/corpus.
fuzz: node_modules/.installed
	npm run fuzz

clean:
	rm -rf dist node_modules src/native/build

# npm ci builds the addon (install) and dist/ (prepare); sources newer than that are built again.
node_modules/.installed: package.json package-lock.json src/native/addon.c $(shell find src -name '*.ts')
	test -d node_modules/execa -a node_modules/.lock -nt package-lock.json || { npm ci && touch node_modules/.lock; }
	npm run --silent build
	touch $@
