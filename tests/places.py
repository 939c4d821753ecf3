"""Where tests find this project, and real microscopy with references where there is any."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("UNET_PIPELINE_DATA", ROOT.parent / "shared" / "data"))
