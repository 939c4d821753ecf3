"""Train: stochastic gradient descent on the weighted cross-entropy, one visible loop, resumed where it was cut off.

A step depends on nothing but the weights, the momentum and (seed, step): tiles and dropout are functions of the
step. A resumed training therefore equals an unbroken one bit for bit, on the same machine with the same number of
threads.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from unet_pipeline.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from unet_pipeline.config import Augment, Compute, Train
from unet_pipeline.dataset import Sampler, Tile, ValidationTile, prefetch, stack_tiles, validation_tiles
from unet_pipeline.errors import PipelineError
from unet_pipeline.history import Row, write_history
from unet_pipeline.losses import pixel_weight, weighted_cross_entropy
from unet_pipeline.modelcard import ModelCard
from unet_pipeline.models import autocast, build, choose_device, save_model
from unet_pipeline.progress import Progress
from unet_pipeline.schema import plain
from unet_pipeline.training_stack import TrainingStack, check_stacks, in_memory
from unet_pipeline.validate import Validation, validate
