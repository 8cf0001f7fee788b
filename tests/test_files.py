import errno

import pytest

from cxrlib import files


def test_readers_see_the_old_file_or_the_whole_new_one(tmp_path):
    path = tmp_path / "a" / "table.csv"
    with files.whole_file(path) as partial:
        partial.write_text("old")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), files.whole_file(path) as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [found.name for found in path.parent.iterdir()] == ["table.csv"]


def test_a_full_disk_is_named_with_the_file_and_the_remedy(tmp_path):
    path = tmp_path / "result.json"
    said = r"result\.json cannot be written.*full.*CXR_CACHE"
    with pytest.raises(OSError, match=said), files.whole_file(path) as partial:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_json_without_a_number_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_the_cache_can_be_moved_and_says_when_it_cannot(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "here"))
    assert files.cache_folder("features") == tmp_path / "here" / "features"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="Set CXR_CACHE to a folder"):
        files.cache_folder("features")


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert files.sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EDQUOT, "Free some space"), (errno.EROFS, "that you may write")]
)
def test_why_a_file_cannot_be_written(number, remedy):
    said = files.cannot_write("a/b.json", OSError(number, "odd words"))
    assert said.startswith("a/b.json cannot be written") and remedy in said
    assert all(name in said for name in ("CXR_CACHE", "--out", "CXR_RUN"))


def test_a_file_is_not_read_in_a_million_parts():
    honest = files.Sparing(bytes(1_000_000))
    assert sum(len(honest.read(1000)) for _ in range(1001)) == 1_000_000
    with pytest.raises(ValueError, match="no end, or its parts are too many"):
        list(iter(lambda: files.Sparing.read(honest, 1) or b"again", None))


def test_what_a_terminal_would_obey_is_shown():
    assert files.printable("a\x1b[31m\u202eb\nä") == "a\\x1b[31m\\u202eb\nä"
