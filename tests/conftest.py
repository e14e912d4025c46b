"""What the tests share."""
import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, derandomize=True)  # `make test`: the same examples each time, as many as a test says
settings.register_profile("long", deadline=None, derandomize=False, max_examples=1000, print_blob=True)  # `make fuzz`: new ones each time
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    "A folder with raw/, tasks/ and recorded/; tests that need it are skipped where it is not named."
    folder = os.environ.get("COTSTUDY_DATA")
    if not folder: pytest.skip("COTSTUDY_DATA is unset: name a folder that holds raw/, tasks/ and recorded/ to run the tests on real data")
    for part in ("raw", "tasks", "recorded"):
        if not (Path(folder) / part).is_dir(): pytest.skip(f"COTSTUDY_DATA has no {part}/")
    return Path(folder)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    "A store and an empty folder with own questions; see desk.py."
    from desk import set_up  # here: most tests need none of what it imports
    return set_up(tmp_path, monkeypatch)


@pytest.fixture
def one_thread():
    "One thread of torch, as studies use: sums of the same order, and no waiting for cores that are busy."
    import torch  # here: most tests need none of it
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)
