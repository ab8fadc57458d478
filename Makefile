# A virtual environment in .venv, and what is done with it. Nothing is installed again that has not changed.

PYTHON ?= python3
TORCH ?= torch==2.13.0
EXTRAS ?= dinov2,efficientnet,openvino,pandaset,replay,simulation,training,lint,test
TTT_KD_DATA ?= $(abspath $(wildcard ../shared/data))
export TTT_KD_DATA

VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/done
PIP := $(BIN)/python -m pip install --quiet
DRIVES := $(VENV)/drives
DOMAINS := source beams32 beams16 low tilted fog rain city dusk miscalibrated all
SEEDS ?= 0 1 2
STEPS ?= 800
SCANS ?= 20
RATE ?= 0.2
DEADLINE ?= 450
CACHES := .pytest_cache .mypy_cache .ruff_cache

# A sourced ROS distribution brings everything that without_ros stands in for.
ROS := $(and $(ROS_DISTRO),$(shell $(PYTHON) -c 'import rclpy' 2>/dev/null && echo yes))
STAND_INS := $(if $(ROS),,$(DONE)/stand_ins $(DONE)/tf2_msgs)
# Its cv_bridge is compiled for its numpy: nothing may replace that.
NUMPY := $(if $(ROS),$(shell $(PYTHON) -c 'import numpy; print(f"numpy=={numpy.__version__}")'))

.PHONY: help setup test faults soak lint demo model domains benchmark timing clean always
.NOTPARALLEL:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Variables: PYTHON="$(PYTHON)" TORCH="$(TORCH)" EXTRAS="$(EXTRAS)" TTT_KD_DATA="$(TTT_KD_DATA)"'

setup: $(STAND_INS) $(DONE)/package ## Make .venv with all that the other targets need

test: setup ## Run the tests; ARGS="test/unit -k pairing" runs some of them
	$(BIN)/python -m pytest $(ARGS)

faults: setup ## Try every fault and write the table docs/faults.md
	$(BIN)/python -m pytest test/node -m fault --faults docs/faults.md

soak: setup ## 36,000 scans through the segmenter, 2,000 through the node: no memory may be lost
	$(BIN)/python -m pytest test/unit/test_soak_segmenter.py test/node/test_soak_node.py --soak --timeout=0

lint: setup ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ifdef DATA
demo: setup ## Show what adaptation changes on a simulated drive; DATA=<folder> CHECKPOINT=<file>: on your own
	rm -rf demo/bag demo/segmentation
	$(BIN)/ttt_kd convert "$(DATA)" demo/bag
	$(BIN)/ttt_kd replay demo/bag --checkpoint "$(CHECKPOINT)" --rate 0 --out demo --report
else
demo: setup
	rm -rf $(addprefix demo/,drive simulated_drive off online)
	$(BIN)/ttt_kd demo --out demo $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)")
endif

# The model that comes with the package: 40 drives of 5 scans, 2 s apart, of the domain `source` alone.
model: setup ## Train models/street6.safetensors again, on simulated drives
	rm -rf $(DRIVES) $(VENV)/model
	for seed in $$(seq 0 39); do \
		$(BIN)/ttt_kd simulate $(DRIVES)/source_$$seed --seed $$seed --frames 5 --interval 2 || exit 1; \
	done
	$(BIN)/ttt_kd train $(DRIVES)/source_? $(DRIVES)/source_?? --config simulated --seed 0 --out $(VENV)/model
	mkdir -p models && cp $(VENV)/model/model.safetensors models/street6.safetensors

domains: setup ## Train on the simulator's domain `source` and score every domain: source-only, joint, adapted; SEEDS="0 1 2" STEPS=800 SCANS=20
	for seed in $$(seq 0 39); do \
		test -d $(DRIVES)/source_$$seed || \
		$(BIN)/ttt_kd simulate $(DRIVES)/source_$$seed --seed $$seed --frames 5 --interval 2 || exit 1; \
	done
	for domain in $(DOMAINS); do \
		test -d $(DRIVES)/$$domain || \
		$(BIN)/ttt_kd simulate $(DRIVES)/$$domain --domain $$domain --seed 1000 --frames 20 || exit 1; \
	done
	for seed in $(SEEDS); do for kd in 0 1; do \
		out=$(VENV)/domains/kd$${kd}_$$seed; \
		test -f $$out/model.safetensors && continue; \
		rm -rf $$out && \
		$(BIN)/ttt_kd train $(DRIVES)/source_? $(DRIVES)/source_?? --config simulated --steps $(STEPS) --seed $$seed --kd-weight $$kd \
			--out $$out || exit 1; \
	done; done
	$(BIN)/ttt_kd evaluate $(DOMAINS:%=$(DRIVES)/%@0:$(SCANS)) --protocol modes --out demo/domains \
		--source-only $(SEEDS:%=$(VENV)/domains/kd0_%/model.safetensors) \
		--checkpoint $(SEEDS:%=$(VENV)/domains/kd1_%/model.safetensors)

benchmark: setup ## Time each stage; DATA="<folder> ..." on your own data
	test -n "$(DATA)" || test -d $(DRIVES)/speed || $(BIN)/ttt_kd simulate $(DRIVES)/speed --seed 1000 --frames 3
	$(BIN)/ttt_kd benchmark $(or $(DATA),$(DRIVES)/speed) --out demo/benchmark $(ARGS)

# Two scans a second, for two slow cores: RATE=1 is the recorded 10 Hz.
timing: setup ## Latency of the node's schedules, three rounds in turns; RATE=1 DEADLINE=90 on a faster machine, DATA=<folder> your own drive
	test -n "$(DATA)" || test -d $(DRIVES)/timing || \
		$(BIN)/ttt_kd simulate $(DRIVES)/timing --domain beams16 --seed 1000 --frames 100
	rm -rf demo/timing && $(BIN)/ttt_kd convert $(or $(DATA),$(DRIVES)/timing) demo/timing/bag
	for round in 1 2 3; do \
		for how in "off --adaptation off" \
			"background --param adaptation.schedule=background" \
			"before --param adaptation.deadline_ms=$(DEADLINE)"; do \
			set -- $$how; name=$$1; shift; echo "== $$name, round $$round"; \
			$(BIN)/ttt_kd replay demo/timing/bag --rate $(RATE) --param threads=1 --steps 5 $$@ $(ARGS) \
				--out demo/timing/$$name$$round || exit 1; \
		done; \
	done

clean: ## Remove what was made, except .venv
	rm -rf build install log demo *.egg-info without_ros/packages/*.egg-info $(CACHES)
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(DONE)/venv:
	$(PYTHON) -m venv $(if $(ROS),--system-site-packages) $(VENV)
	touch $(VENV)/COLCON_IGNORE
	mkdir -p $(DONE) && touch $@

# Holds the choices made on the command line; rewritten only when they change.
$(DONE)/torch.txt: always | $(DONE)/venv
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(DONE)/extras.txt: always | $(DONE)/venv
	@echo '$(EXTRAS)' | cmp -s - $@ || echo '$(EXTRAS)' > $@

# Before all that needs it, so that nothing else chooses another build of it.
$(DONE)/torch: $(DONE)/torch.txt
	$(PIP) '$(TORCH)' $(NUMPY)
	touch $@

$(DONE)/package: setup.py setup.cfg pyproject.toml $(DONE)/extras.txt $(DONE)/torch
	$(PIP) --editable '.[$(EXTRAS)]' $(NUMPY)
	touch $@

# Beside the wheels, every Python of this environment learns where the ament index is.
$(DONE)/ros_wheels: without_ros/requirements.txt | $(DONE)/venv
	$(PIP) --requirement $<
	echo 'import os, sys; os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)' > \
		"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ament_prefix_path.pth"
	touch $@

$(DONE)/stand_ins: without_ros/pyproject.toml $(DONE)/ros_wheels
	$(PIP) --editable without_ros
	touch $@

$(DONE)/tf2_msgs: $(wildcard without_ros/tf2_msgs/* without_ros/tf2_msgs/msg/*) $(DONE)/ros_wheels
	rm -rf $(VENV)/build
	CMAKE_PREFIX_PATH="$(abspath $(VENV))" AMENT_PREFIX_PATH="$(abspath $(VENV))" PATH="$(abspath $(BIN)):$$PATH" \
		cmake -S without_ros/tf2_msgs -B $(VENV)/build -DBUILD_TESTING=OFF \
		-DCMAKE_INSTALL_PREFIX="$(abspath $(VENV))" -DPython3_EXECUTABLE="$(abspath $(BIN))/python" > /dev/null
	cmake --build $(VENV)/build --parallel > /dev/null
	cmake --install $(VENV)/build > /dev/null
	touch $@
