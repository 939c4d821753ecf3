# make demo: run the workflow on the demo stacks.   make test: run the tests.   make help: the rest.
# Each target first makes .venv from the lock in envs/, and does nothing to it while the lock is unchanged.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help demo test test-slow presets cluster-test faults fuzz bench compare bench-environment lint docs format schema lock clean environment cpu

CORES ?= all
WORKERS ?= 3
SEED ?= 0
LIMIT ?= 600
PYTHON ?= >=3.11,<3.14
LOCK := envs/requirements-dev.txt
UV := .tools/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11.1 --fork-strategy requires-python --generate-hashes \
	--no-annotate --no-header --no-emit-index-url --no-emit-find-links --upgrade
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder
PACKAGES := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
# an environment that sees all of .venv and has packages of its own
define beside
$(UV) venv --quiet --python .venv/bin/python $(1); \
		echo "import site; site.addsitedir('$$(.venv/bin/python $(PACKAGES))')" > "$$($(1)/bin/python $(PACKAGES))/pipeline.pth"
endef

# packages that differ without CUDA, or serve it alone
CUDA := torch|torchvision|triton|(cuda|nvidia)-[a-z0-9-]+
# .venv holds everything, or with `make cpu` what a run needs without a GPU; what needs more makes it anew
KIND :=
cpu: override KIND := cpu
test test-slow presets cluster-test faults fuzz bench-environment lint docs format: override KIND := all

export PATH := $(CURDIR)/.venv/bin:$(PATH)
unexport PYTHONDONTWRITEBYTECODE # as containers set it: each of many short jobs would compile its libraries anew

help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/p' Makefile | expand -t 16

demo: environment ## run the whole workflow on the demo stacks: a few minutes, then open results/report.html
	@snakemake --cores $(CORES)
	@python -c 'import json; seg = json.load(open("results/unseen/metrics.json"))["instances"]["seg"]; \
	print(f"\nInstance score (CTC SEG, 0 to 1) of the unseen stack: {seg:.3f}\nLook at results/report.html")'

cpu: environment ## a .venv of 1.6 GB, not 6.1: no CUDA, no tools of developers; then `make demo` or snakemake
	@du -sh .venv

test: environment ## tests of everything, one whole workflow among them, on WORKERS processes (3): 4 to 5 minutes
	@$(PYTEST)

test-slow: environment ## the rest, 13 minutes: clean runs, months later, cross-validation, browser, conda, hostile files
	@$(PYTEST) -m "slow and not cluster"

presets: environment ## every preset at small size from images to a score, a few minutes; ONLY='paper tgs', DATA=folder
	@OMP_NUM_THREADS=1 python benchmarks/presets.py $(if $(ONLY),--presets $(ONLY)) $(if $(DATA),--root $(DATA))

cluster-test: environment ## start a Slurm of three nodes here (root on Debian), run the workflow on it, stop it: 9 minutes
	@folder="$$(mktemp -d)"; trap 'tests/cluster/down "$$folder"; rm -rf "$$folder"' EXIT; \
	OMP_NUM_THREADS=1 UNET_PIPELINE_CLUSTER="$$folder" pytest -m cluster tests/cluster

faults: environment ## kill, corrupt and fill N times (200), seeded by SEED (0), and compare with an undisturbed run
	@python tests/faults --trials $(or $(N),200) --seed $(SEED) --workers $(WORKERS)

fuzz: environment ## hostile input: N inputs per target (1000), at most LIMIT s each (600); REPLAY=file runs one again
	@if [[ ! -x .venv-fuzz/bin/python ]]; then \
		$(call beside,.venv-fuzz); \
		$(UV) pip install --quiet --python .venv-fuzz --only-binary :all: 'atheris>=3' \
			|| echo "no wheel of atheris for this Python: mutation without coverage"; \
	fi
	@PYTHONPATH=.:tests .venv-fuzz/bin/python -m fuzz --inputs $(or $(N),1000) --seconds $(LIMIT) $(if $(REPLAY),--replay $(REPLAY))

bench: bench-environment ## all benchmarks that fit a small machine, about 25 minutes; tables in benchmarks/tables; SMALL=1: do they run?
	@for name in $(or $(ONLY),weigh objects predict volumes train shards memory starts workflow gpu); do \
		$(if $(SMALL),BENCH_SMALL=1) .venv-bench/bin/python benchmarks/$$name.py; \
	done | tee .venv-bench/figures; echo; cat .venv-bench/figures

compare: bench-environment ## presets and peers on real data, equal CPU minutes; BUDGET='1 6', SETS, FOLDS, DATA=folder, GIVEN='--config …'
	@$(UV) pip install --quiet --python .venv-bench --no-deps --require-hashes --only-binary :all: \
		-r benchmarks/requirements-stardist.txt || echo "no wheels of StarDist for this machine: left out"
	@mkdir -p benchmarks/jobs/compare
	@$(if $(DATA),UNET_PIPELINE_DATA='$(abspath $(DATA))') .venv-bench/bin/python -m snakemake --cores $(CORES) \
		--snakefile benchmarks/comparison/Snakefile --directory benchmarks/jobs/compare --keep-going --nolock --rerun-incomplete \
		$(if $(BUDGET)$(SETS)$(FOLDS),--config $(if $(BUDGET),minutes="$(BUDGET)") $(if $(SETS),data="$(SETS)") \
		$(if $(FOLDS),folds="$(FOLDS)")) $(GIVEN)
	@cp benchmarks/jobs/compare/compare.md benchmarks/tables/

bench-environment: environment
	@if [[ ! -x .venv-bench/bin/python ]]; then \
		$(call beside,.venv-bench); \
		$(UV) pip install --quiet --python .venv-bench --no-deps --require-hashes -r benchmarks/requirements.txt; \
	fi

lint: environment docs ## ruff, mypy, snakefmt, snakemake --lint, links within docs/
	@ruff check .
	@ruff format --check .
	@mypy
	@snakefmt --check Snakefile workflow benchmarks/comparison/Snakefile
	@snakemake --lint

docs: environment ## the pages of docs/ as a site in site/, strictly: a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

format: environment ## let ruff and snakefmt rewrite the sources
	@ruff check --fix .
	@ruff format .
	@snakefmt Snakefile workflow benchmarks/comparison/Snakefile

schema: environment ## write workflow/schemas/*.yaml from the dataclasses
	@python workflow/schemas/generate.py

lock: $(UV) ## resolve the newest versions that pyproject.toml allows into envs/requirements*.txt
	@$(COMPILE) pyproject.toml --all-extras --group dev --output-file envs/requirements-dev.txt
	@$(COMPILE) pyproject.toml --extra workflow --extra slurm --extra cluster --constraint envs/requirements-dev.txt \
		--output-file envs/requirements.txt
	@echo uv | $(COMPILE) - --output-file envs/requirements-uv.txt
	@echo 'Now bring envs/*.yaml to the versions in envs/requirements.txt; make test says which differ.'

clean: ## remove what runs made: results/, demo/, .snakemake/
	rm -rf results demo .snakemake

# Asked for another Python or kind, it begins anew, with all that leans on .venv; not asked, it keeps the one that is there.
# PyPI has no PyTorch without CUDA for Linux: `--torch-backend cpu` takes it where PyTorch offers it, by its version alone.
environment: $(UV)
	@sources="$$(cat envs/requirements*.txt pyproject.toml Makefile | cksum | tr ' ' :)"; made= python= kind=; \
	[[ ! -s .venv/stamp ]] || read -r made python kind < .venv/stamp; \
	wanted='$(if $(filter file,$(origin PYTHON)),,$(PYTHON))'; wanted="$${wanted:-$${python:-$(PYTHON)}}"; \
	kind="$${kind:-all}"; want_kind='$(KIND)'; want_kind="$${want_kind:-$$kind}"; \
	if [[ "$$sources $$wanted $$want_kind" != "$$made $$python $$kind" ]]; then \
		lock=$(LOCK); [[ "$$want_kind" == all ]] || lock=envs/requirements.txt; \
		echo "making .venv from $$lock$$([[ "$$want_kind" == all ]] || echo ', without CUDA')"; \
		[[ "$$wanted $$want_kind" == "$$python $$kind" ]] || rm -rf .venv/* .venv-bench .venv-fuzz; \
		$(UV) venv --quiet --allow-existing --python "$$wanted" .venv; \
		if [[ "$$want_kind" == cpu ]]; then \
			awk '/^[^ #]/ {kept = !/^($(CUDA))==/} kept' "$$lock" > .venv/requirements.txt; \
			torch="$$(sed -nE 's/^(torch(vision)?==[^ ]+).*/\1/p' "$$lock")"; lock=.venv/requirements.txt; \
		fi; \
		$(UV) pip sync --quiet --python .venv --require-hashes "$$lock"; \
		[[ "$$want_kind" == all ]] || $(UV) pip install --quiet --python .venv --no-deps --torch-backend cpu $$torch; \
		$(UV) pip install --quiet --python .venv --no-deps --no-build-isolation --editable .; \
		echo "$$sources $$wanted $$want_kind" > .venv/stamp; \
	fi

$(UV):
	@envs/get-uv
