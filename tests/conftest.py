"""What the tests share."""
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    "A folder with raw/, tasks/ and recorded/; tests that need it are skipped where it is not named."
    folder = os.environ.get("COTSTUDY_DATA")
    if not folder: pytest.skip("COTSTUDY_DATA is unset: name a folder that holds raw/, tasks/ and recorded/ to run the tests on real data")
    for part in ("raw", "tasks", "recorded"):
        if not (Path(folder) / part).is_dir(): pytest.skip(f"COTSTUDY_DATA has no {part}/")
    return Path(folder)
