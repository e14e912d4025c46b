import shutil

import pytest

from cotstudy import files


def test_a_folder_is_replaced_only_where_all_is_as_it_was_written(tmp_path):
    "Somebody else's checksums, a note, a changed file, a link: each is left alone."
    home = tmp_path / "home"
    assert files.may_fill(home) == home.resolve() and not home.exists()
    home.mkdir()
    assert files.may_fill(home)  # empty
    with files.sealed_folder(home) as new:
        files.write_text(new / "a.txt", "a")
        files.write_text(new / "below" / "two words.txt", "b")
    assert files.may_fill(home)
    for spoil in (lambda p: (p / "note.txt").write_text("mine"), lambda p: (p / "a.txt").write_text("b"),
                  lambda p: (p / "photographs").symlink_to(tmp_path), lambda p: (p / files.SUMS).unlink(),
                  lambda p: (p / files.SUMS).write_text("abc  a.txt\n"), lambda p: (p / files.SUMS).write_text("?")):
        other = tmp_path / "other"
        shutil.copytree(home, other)
        spoil(other)
        with pytest.raises(ValueError, match="holds other files"): files.may_fill(other)
        assert (other / "a.txt").exists()
        shutil.rmtree(other)
    with pytest.raises(ValueError, match="is a file"): files.may_fill(home / "a.txt")


def test_checksums_of_somebody_else_seal_nothing(tmp_path):
    data = tmp_path / "data.csv"
    data.write_text("years of work")
    for sums in (f"{files.file_hash(data)}  data.csv\n", "how I made these numbers\n", ""):
        (tmp_path / files.SUMS).write_text(sums)
        with pytest.raises(ValueError, match="holds other files"): files.may_fill(tmp_path)
    data.unlink()
    with pytest.raises(ValueError, match="holds other files"): files.may_fill(tmp_path)


def test_a_name_with_a_strange_character_is_a_name(tmp_path):
    with files.sealed_folder(tmp_path / "made") as new: files.write_text(new / "a\u0085b.txt", "a")
    assert files.may_fill(tmp_path / "made")


def test_a_sealed_folder_that_fails_leaves_the_old_one(tmp_path):
    with files.sealed_folder(tmp_path / "made") as new: files.write_text(new / "a.txt", "old")
    with pytest.raises(RuntimeError), files.sealed_folder(tmp_path / "made") as new:
        files.write_text(new / "a.txt", "new")
        raise RuntimeError
    assert (tmp_path / "made" / "a.txt").read_text() == "old" and files.may_fill(tmp_path / "made")
    assert [p.name for p in tmp_path.iterdir()] == ["made"]
