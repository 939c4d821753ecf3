"""Memory of components does not grow with the volume."""

from __future__ import annotations

import subprocess
import sys

import pytest

FLAT = """
import resource, numpy as np
from unet_pipeline.objects.component_options import ComponentOptions
from unet_pipeline.objects.components import label_components
rng = np.random.default_rng(0)
block = np.kron(rng.random((16, 16)) < 0.5, np.ones((16, 16))).astype(np.uint8)
def run(planes, edge, options):
    label_components(lambda *at: block, lambda *at: None, (planes, edge, edge), (256, 256), options)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for options in (ComponentOptions(fill_holes=True), ComponentOptions(across_planes=True, fill_holes=True)):
    run(2, 512, options)
    print(run(2, 512, options), run(10, 1536, options))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is counted in KiB on Linux")
def test_memory_stays_flat():
    found = subprocess.run([sys.executable, "-c", FLAT], check=True, capture_output=True, text=True).stdout
    for small_kib, large_kib in (map(int, line.split()) for line in found.splitlines()):
        assert large_kib - small_kib < 50 * 1024  # labels of its 23.6 Mpx alone would take 90 MiB
