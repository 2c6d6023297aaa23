"""An image for tests of how images are prepared."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """Smooth colours of 400 x 300 pixels."""
    coarse = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC)
