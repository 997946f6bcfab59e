# Two commands do everything on a fresh Debian machine with Rust: `make demo` and `make test`. Each says what it does.
.PHONY: demo test test-rootless test-v2 samples images clients browser promtool tools fuzz bench

# The main job: builds the binary and the samples, then runs the tour on a real cluster in a temporary place.
demo: tools samples
	@echo "demo: building the binary (a first build takes about ten minutes on two cores; wasmtime and its compiler are most of it)"
	cargo build --locked --workspace --all-targets
	target/debug/skep demo

# All tests: unit tests of every room, the binary end to end, hostile inputs, the simulator's seeds, the rules of the house.
test: tools samples images clients browser promtool
	@echo "test: building and running all tests"
	cargo test --locked --workspace --no-fail-fast

# The tasks to run first, as WebAssembly, in samples/dist.
samples: tools
	@samples/build

# What a build needs besides Rust: a C compiler.
tools:
	@command -v cc >/dev/null || { echo "tools: installing gcc with apt-get"; \
	  if [ "$$(id -u)" = 0 ]; then apt-get -q update && apt-get -q install -y gcc libc6-dev; else sudo apt-get -q update && sudo apt-get -q install -y gcc libc6-dev; fi; }

# The fuzzers with libFuzzer, each for FUZZ_SECONDS (60): any bytes as frames, as wasm, as job files, as a journal, and over HTTP at a master.
fuzz:
	FUZZ_SECONDS=$${FUZZ_SECONDS:-60} tests/fuzz/run frame_decode wasm_intake job_file journal_replay http_router

# The binary end to end as a user who is not root, where root runs this: without root `make test` is that already.
test-rootless:
	@[ "$$(id -u)" = 0 ] || { echo "test-rootless: skipped: this is not root, and make test has run without it"; exit 0; }; \
	  it=$$(cargo test --locked --workspace --no-run --message-format=json 2>/dev/null | sed -n 's/.*"executable":"\([^"]*\/it-[0-9a-f]*\)".*/\1/p' | tail -n 1); \
	  as="setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent"; \
	  $$as test -x "$$it" || { echo "test-rootless: skipped: other users cannot reach $$it"; exit 0; }; \
	  echo "test-rootless: running $$it as user 65534"; $$as "$$it" processes:: run:: survive:: hostile_tasks::

# The tests of limits under control groups of version 2, in a small emulated machine with Debian's kernel.
test-v2:
	tests/vm/run jail::cgroup executor::process::tests::each_limit executor::process::tests::nothing_of executor::process::tests::a_task_that \
	  executor::process::tests::it_outlives executor::process::tests::the_task_of

# What makes the container images that the tests unpack and run, and the servers that they run (none of them is started as a service of this
# machine); without root nor sudo those tests say that they are skipped.
images:
	@tests/install images busybox:busybox-static redis-server:redis-server etcd:etcd-server nginx:nginx-light debootstrap:debootstrap mkfs.ext4:e2fsprogs \
	  ip:iproute2 iptables:iptables dig:bind9-dnsutils haproxy:haproxy skopeo:skopeo umoci:umoci
	@[ -e target/images/debian.tar ] || samples/debian-image target/images/debian.tar || echo "images: no root of Debian: its test is skipped"

# Clients of Mesos' and Marathon's APIs from PyPI, in a virtual environment of their own: frameworks and tools that know nothing of skep. The C part of what pymesos
# reads HTTP with does not compile any more: its Python part does the same. And what the sample frameworks in Java and C++ are compiled with.
CLIENTS = mesoshttp==0.4.2 avmesos==0.4.2 avmesos-cli==1.0.0 addict==2.4.0 marathon==0.13.0
PYMESOS = pymesos==0.3.15
PARSER = http-parser==0.9.0
clients:
	@[ "$$(cat target/clients/have 2>/dev/null)" = "$(CLIENTS) $(PYMESOS) $(PARSER)" ] || { echo "clients: installing $(CLIENTS) $(PYMESOS) with pip, in target/clients"; \
	  python3 -c 'import ensurepip' 2>/dev/null || { if [ "$$(id -u)" = 0 ]; then as=; else as="sudo -n"; fi; \
	    { $$as apt-get -q update && $$as apt-get -q install -y --no-install-recommends python3-venv; } >/dev/null 2>&1; }; \
	  { python3 -m venv --clear target/clients && target/clients/bin/python -m pip -q install $(CLIENTS) && target/clients/bin/python -m pip -q install --no-deps $(PYMESOS) \
	    && target/clients/bin/python -m pip -q download --no-deps --no-binary :all: -d target/clients/source $(PARSER) \
	    && tar -xzf target/clients/source/*.tar.gz --strip-components=1 --wildcards -C target/clients/lib/python3*/site-packages '*/http_parser/*.py' \
	    && echo "$(CLIENTS) $(PYMESOS) $(PARSER)" > target/clients/have; } \
	    || echo "clients: they cannot be installed here: some tests are skipped"; }
	@tests/install clients javac:default-jdk-headless g++:g++ curl-config:libcurl4-openssl-dev

# What the page is looked at with; without it its tests say that they are skipped.
browser:
	@tests/install browser chromium:chromium

# What judges the names of figures and the dashboard's queries: out of Debian's package prometheus (19 MB to fetch), which is not installed.
promtool:
	@[ -x target/promtool ] || command -v promtool >/dev/null || { echo "promtool: fetching it out of Debian's package prometheus"; mkdir -p target/prometheus && ( \
	  cd target/prometheus && apt-get -q download prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && mv usr/bin/promtool .. ) >/dev/null 2>&1 \
	    || echo "promtool: it cannot be had here: one test is skipped"; rm -rf target/prometheus; }

# The figures of SPECIFICATION.md, from a release build.
bench: samples
	cargo build --locked --release --workspace
	target/release/skep bench tasks
	target/release/skep bench tasks --separate
	target/release/skep bench tasks --masters 3
	target/release/skep bench latency
	target/release/skep bench latency --process
	target/release/skep bench idle
	target/release/skep bench idle --component
	target/release/skep bench memory
	target/release/skep bench rest
	target/release/skep bench cold
	target/release/skep bench detect
	target/release/skep bench roll
	target/release/skep bench roll --over
	target/release/skep bench tasks --kind native
	target/release/skep bench tasks --kind container
	target/release/skep bench latency --kind native
	target/release/skep bench latency --kind container
	target/release/skep bench recover
	target/release/skep bench agents
	target/release/skep bench apps
	target/release/skep bench events
	target/release/skep bench failover
	target/release/skep bench cold-start
	target/release/skep bench overload
	target/release/skep bench frameworks
	target/release/skep bench policies
	target/release/skep bench page
