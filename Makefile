# Each target first makes .venv and installs what it needs; the second time that costs nothing.
# A smaller torch without CUDA: make install TORCH_FLAGS="--index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
TORCH_FLAGS ?=
MINUTES ?= 60
PIP = .venv/bin/pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: install demo test test-slow torture fuzz lint docs build soak mutants coverage

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	$(PIP) $(TORCH_FLAGS) torch
	$(PIP) -e '.[dev]'
	touch $@

demo: install
	HF_HUB_OFFLINE=1 .venv/bin/augkd compare demo --out runs/demo
	.venv/bin/augkd report runs/demo

# Minutes; what takes longest (kills, damage, every device, model and shipped recipe, the commands of the pages) is in test-slow.
test: install
	HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -n auto --dist loadgroup -m "not slow"

test-slow: install
	HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -n auto --dist loadgroup -m slow

# One process in use for an hour: does its memory grow, does it leave handles or temporary files behind?
soak: install
	cd tests && HF_HUB_OFFLINE=1 ../.venv/bin/python -m support.soak --minutes $(MINUTES)

# A random sample of mutants of the modules that decide results: how many do the tests notice?
mutants: install
	$(PIP) -e '.[mutants]'
	cd tests && HF_HUB_OFFLINE=1 ../.venv/bin/python -m support.mutants

# The lines of augkd that no test runs; the commands that tests start are counted too. About an hour on two cores.
coverage: install
	$(PIP) -e '.[coverage]'
	HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -n auto --cov --cov-report=term-missing

# Hostile input at every entry point and command: 50,000 cases in about 20 minutes on one core.
fuzz: install
	HF_HUB_OFFLINE=1 PYTHONPATH=tests .venv/bin/python -m support.fuzzing --cases 50000

# Kills, full disks, vanished inputs, flipped bits and pairs of processes: about 20 minutes on one core.
torture: install
	AUGKD_TORTURE=long HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -s tests/runs/test_torture.py tests/runs/test_integrity.py

lint: install
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

# The pages and the signatures of the public names, in site/; a broken link or an unknown name is an error.
docs: install
	.venv/bin/zensical build --strict --clean

build: install
	.venv/bin/python -m build
