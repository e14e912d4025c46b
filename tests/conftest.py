"""What the tests share."""
import os
import time
from collections import Counter
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings

PROPERTY_S = float(os.environ.get("PROPERTY_S", 1))  # seconds for each property test: `make test` takes this, `make fuzz` more
PROPERTY_SEED = int(os.environ.get("PROPERTY_SEED", 0))  # where its examples begin; `make fuzz` takes another one each time
ROUND = 10  # examples at once, and at least

settings.register_profile("cotstudy", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("cotstudy")


def rounds_for(item, seconds: float, run):
    "Run a property test round after round, each with new examples, until its time is over."
    test, until = getattr(item.obj, "__func__", item.obj), time.monotonic() + seconds
    machine = getattr(test, "_hypothesis_state_machine_class", None)  # its rounds are short by its own settings
    if not machine: test._hypothesis_internal_use_settings = settings(test._hypothesis_internal_use_settings, max_examples=ROUND)
    for k in count(PROPERTY_SEED):
        (machine or test)._hypothesis_internal_use_seed = k
        run()
        if time.monotonic() > until: break


def pytest_collection_modifyitems(items):
    found = [(item, item.nodeid.split("[")[0]) for item in items if getattr(getattr(item, "obj", None), "is_hypothesis_test", False)]
    variants = Counter(name for _, name in found)
    for item, name in found: item.runtest = partial(rounds_for, item, PROPERTY_S / variants[name], item.runtest)


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


@pytest.fixture(scope="session")
def study_made(tmp_path_factory):
    "The outputs of a small study of two seeds, run once: sample_count on relations, with one vote."
    from cotstudy.analyses import study_cell
    from cotstudy.results import collect
    out = tmp_path_factory.mktemp("judged")
    small = {"task_args.n_train": 16, "task_args.n_test": 24, "teacher.pool": 2, "recipe.steps": 8}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COTSTUDY_OUTPUTS", str(out))
        study_cell("sample_count", "judged", "", "relations", "pocket/teacher_s", small, n_rationales=[1, 2], seeds=[0, 1], n_paths=3)
        collect("judged")
    return out


@pytest.fixture
def studied(study_made, monkeypatch):
    "That study, as the outputs of this test."
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(study_made))
    return study_made


@pytest.fixture
def one_thread():
    "One thread of torch, as studies use: sums of the same order, and no waiting for cores that are busy."
    import torch  # here: most tests need none of it
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture
def odd(monkeypatch):
    "A server that can be told to misbehave, and that keeps its own bill."
    from odd import Odd
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server = Odd()
    yield server
    server.http.shutdown()
