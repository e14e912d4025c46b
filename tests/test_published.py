"""Published corpora: read from their pinned upstream files, they are what the data folder holds, row by row."""
import json
import os
import shutil

import pytest
from typer.testing import CliRunner

from cotstudy import published
from cotstudy.cli import app
from cotstudy.openers import open_model
from cotstudy.published import CORPORA, FILES, corpus_list, shuffled_order
from cotstudy.recorded import recorded
from cotstudy.sources import SOURCES, at_hand

PARSED = [n for n, c in CORPORA.items() if c.read]


@pytest.fixture
def raw_only(data_dir, tmp_path, monkeypatch):
    "A data folder that holds upstream files and nothing that was made of them."
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "raw").symlink_to(data_dir / "raw")
    monkeypatch.setenv("COTSTUDY_DATA", str(folder))
    monkeypatch.setenv("COTSTUDY_CACHE", str(tmp_path / "cache"))
    return data_dir / "recorded"


@pytest.mark.parametrize("name", PARSED)
def test_upstream_is_what_was_collected(name, raw_only):
    if not all(at_hand(FILES[f]) for f in CORPORA[name].files): pytest.skip("COTSTUDY_DATA/raw lacks its upstream file")
    ours = recorded(name)
    assert ours.attrs["path"].startswith("https://") and len(ours.attrs["sha256"]) == 64
    if not (path := raw_only / f"{name}.jsonl.gz").is_file(): pytest.skip("COTSTUDY_DATA/recorded lacks it")
    theirs = recorded(path)
    assert list(ours) == list(theirs) and len(ours) == len(theirs)
    assert ours.to_dict("records") == theirs.to_dict("records")


def test_the_data_folder_comes_first(data_dir, monkeypatch):
    monkeypatch.setattr(published, "fetch", lambda *a: pytest.fail("it was fetched"))
    frame = recorded("multiarith__ho_zero_shot_cot")
    assert frame.attrs["path"].startswith(str(data_dir)) and len(frame) == 792
    assert corpus_list().set_index("corpus")["where"]["multiarith__ho_zero_shot_cot"] == "data folder"


def test_both_ways_are_one_teacher(data_dir, raw_only):
    ours = open_model("recorded:coin_flip__ho_zero_shot_cot").id
    os.environ["COTSTUDY_DATA"] = str(data_dir)
    assert open_model("recorded:coin_flip__ho_zero_shot_cot").id == ours


def test_another_file_is_refused(data_dir, tmp_path, monkeypatch):
    pin = FILES["ho/D_coin_flip.json"]
    held = tmp_path / "raw" / pin.local
    held.parent.mkdir(parents=True)
    held.write_bytes((data_dir / "raw" / pin.local).read_bytes().replace(b"heads", b"tails", 1))
    monkeypatch.setenv("COTSTUDY_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="expected " + pin.sha256): recorded("coin_flip__ho_zero_shot_cot")


def test_an_unverified_file_with_other_contents_is_one_line(data_dir, tmp_path, monkeypatch):
    pin = FILES["mario/strategyqa/gpt3/test_gpt3_responses.jsonl"]
    held = tmp_path / "raw" / pin.local
    held.parent.mkdir(parents=True)
    shutil.copytree(data_dir / "raw" / "StrategyQA", tmp_path / "raw" / "StrategyQA")
    row = dict(question="Is this asked nowhere?", gold_label="no", predicted_label="no", predicted_rationale="It is not.")
    for text, message in ((json.dumps({"0": row}), "no question reads 'Is this asked"), ("[1]", "cannot be read"), ("{", "cannot be")):
        held.write_text(text)
        monkeypatch.setenv("COTSTUDY_DATA", str(tmp_path))
        with pytest.raises(ValueError, match=message) as e: recorded("strategyqa_test__gpt3_mario")
        assert "\n" not in str(e.value)


def test_without_data_or_network(tmp_path, monkeypatch):
    monkeypatch.delenv("COTSTUDY_DATA", raising=False)
    monkeypatch.setenv("COTSTUDY_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="small files upstream.*COTSTUDY_DATA"): recorded("obqa_train__gpt35_kard20")
    with pytest.raises(FileNotFoundError, match="cotstudy corpora"): recorded("nobody_ever")
    with pytest.raises(FileNotFoundError, match="127.0.0.1.*go online, or set COTSTUDY_DATA"):
        published.published("svamp__zero_shot", "http://127.0.0.1:1")
    with pytest.raises(KeyError, match="cotstudy corpora"): published.published("nobody_ever")


def test_every_corpus_belongs_to_a_task():
    assert all(c.task.split(":")[0] in SOURCES for c in CORPORA.values())
    assert {f for c in CORPORA.values() for f in c.files} == set(FILES)
    assert [n for n, c in CORPORA.items() if c.conditioned] == [n for n in CORPORA if "kard" in n]
    assert sorted(shuffled_order(600)) == list(range(600)) and shuffled_order(600)[:2] == [324, 19]


def test_chains_are_as_many_as_the_table_says(data_dir):
    for name, corpus in CORPORA.items():
        if not (data_dir / "recorded" / f"{name}.jsonl.gz").is_file(): continue
        frame = recorded(name)
        assert frame.groupby("instance").size().mode()[0] == corpus.chains, name
        assert frame.rationale.notna().any() == corpus.chain, name


def test_the_command_lists_them():
    said = CliRunner().invoke(app, ["corpora"])
    assert said.exit_code == 0 and "quarel_train__gpt3_mario" in said.stdout and "PaLM 540B" in said.stdout
    table = {r["corpus"]: r for r in json.loads(CliRunner().invoke(app, ["corpora", "--json"]).stdout)}
    assert set(table) == set(CORPORA) and table["obqa_train__gpt35_kard20"]["conditioned"]
    assert not table["gsm8k__zero_shot"]["verified"] and table["gsm8k__zero_shot"]["licence"] == "none stated"
