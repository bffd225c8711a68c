# draftd: `make demo` runs it on the built-in models, `make test` checks everything. Both set up what they need.

PYTHON ?= python3
BIN := .venv/bin
PINS := -c .ci/constraints.txt

# Compiled tests are kept: a run that compiles them all, once in each process, takes twice as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick check faults soak recovery perf mac-check opencode opencode-installed claude-code claude-code-installed codex codex-installed format clean

demo: .venv/demo-ready
	$(BIN)/draftd up --demo

# Two tests at a time, but for those that measure time (tests/turns.py).
test: check
	$(BIN)/python -m pytest -n 2 --dist worksteal

# All tests that need no mlx and no program of others, but for those that measure time, which must run alone, and
# those marked `thorough`, which are more of the same. Most wait, so five run at a time on two cores.
quick: .venv/test-ready
	$(BIN)/python -m pytest -m "not real and not thorough and not alone" -n 5 --dist worksteal --no-header --durations=3 --hypothesis-profile quick

check: .venv/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The faults of the fault table, each with its test and the time that it took.
faults: .venv/test-ready
	$(BIN)/python -m pytest -m fault --all-faults

# Ten minutes of requests and trouble on the demo pair; SOAK_SECONDS=60 makes it shorter.
soak: .venv/test-ready
	$(BIN)/python -m tests.soak

# How fast a killed worker is noticed and back, beside an mlx_lm.server that is started by hand.
recovery: .venv/test-ready
	$(BIN)/python -m tests.soak.recovery

# What the proxy costs, beside nginx.
perf: .venv/test-ready
	$(BIN)/python -m tests.perf

# Minutes on any Mac: what cannot be seen anywhere else, as one table to paste into a report.
mac-check: .venv/demo-ready
	$(BIN)/python -m tests.mac_check

# The real OpenCode (350 MB from npm) with each of the three presets, and its tools.
opencode: .venv/test-ready opencode-installed
	ALL_PRESETS=1 $(BIN)/python -m pytest tests/test_opencode.py

opencode-installed: build/opencode/node_modules/.bin/opencode

build/opencode/node_modules/.bin/opencode:
	mkdir -p build/opencode
	npm install --prefix build/opencode --no-audit --no-fund opencode-ai@1.18.33

# The real Claude Code (370 MB from npm): a turn in which it writes a file.
claude-code: .venv/test-ready claude-code-installed
	$(BIN)/python -m pytest tests/test_claude_code.py

claude-code-installed: build/claude-code/node_modules/.bin/claude

build/claude-code/node_modules/.bin/claude:
	mkdir -p build/claude-code
	npm install --prefix build/claude-code --no-audit --no-fund @anthropic-ai/claude-code@2.1.328

# The real Codex (400 MB from npm): a turn in which it writes a file.
codex: .venv/test-ready codex-installed
	$(BIN)/python -m pytest tests/test_codex.py

codex-installed: build/codex/node_modules/.bin/codex

build/codex/node_modules/.bin/codex:
	mkdir -p build/codex
	npm install --prefix build/codex --no-audit --no-fund @openai/codex@0.169.0

format: .venv/test-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/demo-ready: .venv/python-ready pyproject.toml .ci/constraints.txt
	$(call install,-e .)
	touch $@

.venv/test-ready: .venv/python-ready pyproject.toml .ci/constraints.txt
	$(call install,-e '.[dev]')
	touch $@ .venv/demo-ready

.venv/python-ready:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "draftd needs Python 3.11 or newer; 'make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)' chooses one"; exit 1; }
	@$(PYTHON) -c 'import platform, sys; sys.exit(sys.platform == "darwin" and platform.machine() != "arm64")' || \
	  { echo "this Python is built for Intel, and mlx runs on Apple silicon only; 'make PYTHON=/path/to/an/arm64/python3 $(MAKECMDGOALS)' chooses another"; exit 1; }
	if command -v uv >/dev/null; then uv venv --allow-existing -q --python "$(PYTHON)" .venv; \
	  else $(PYTHON) -m venv .venv; fi
	touch $@

# uv is faster, pip is everywhere.
define install
	if command -v uv >/dev/null; then uv pip install -q --python $(BIN)/python $(PINS) $(1); \
	  else $(BIN)/python -m pip install -q --disable-pip-version-check $(PINS) $(1); fi
endef
