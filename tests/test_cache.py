import numpy as np
import pytest

from emotion_concepts import cache
from emotion_concepts.cache import RowStore, TextStore, cache_dir, digest, write_atomic
from emotion_concepts.errors import CacheError


def rows(*values):
    return np.array(values, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)


def test_rows_come_back_under_their_keys(tmp_path):
    store = RowStore(tmp_path / "s", (3,))
    store.append(["a", "b"], rows(1, 2))
    store.append(["c"], rows(3))
    assert store.keys() == {"a": 0, "b": 1, "c": 2}
    np.testing.assert_array_equal(store.open(), rows(1, 2, 3))


def test_a_key_that_is_there_already_is_not_written_twice(tmp_path):
    store = RowStore(tmp_path / "s", (3,))
    store.append(["a"], rows(1))
    store.append(["a", "b"], rows(9, 2))
    np.testing.assert_array_equal(store.open(), rows(1, 2))


def test_a_key_given_twice_at_once_is_written_once_and_leaves_the_index_right(tmp_path):
    store = RowStore(tmp_path / "s", (3,))
    store.append(["a", "b", "a"], rows(1, 2, 1))
    store.append(["c"], rows(3))
    assert store.keys() == {"a": 0, "b": 1, "c": 2}
    np.testing.assert_array_equal(store.open(), rows(1, 2, 3))


def test_a_torn_write_is_overwritten_by_the_next_append(tmp_path):
    store = RowStore(tmp_path / "s", (3,))
    store.append(["a"], rows(1))
    with open(tmp_path / "s/rows.f32", "ab") as file:
        file.write(b"half a r")
    with open(tmp_path / "s/index.txt", "ab") as file:
        file.write(b"hal")
    assert store.keys() == {"a": 0}
    store.append(["b"], rows(2))
    np.testing.assert_array_equal(store.open(), rows(1, 2))
    assert store.keys() == {"a": 0, "b": 1}


def test_an_index_without_its_rows_is_reported_as_damage(tmp_path):
    store = RowStore(tmp_path / "s", (3,))
    store.append(["a"], rows(1))
    (tmp_path / "s/rows.f32").write_bytes(b"")
    with pytest.raises(CacheError, match="delete that folder"):
        store.open()


def test_rows_of_another_shape_are_refused(tmp_path):
    with pytest.raises(CacheError, match="do not fit"):
        RowStore(tmp_path / "s", (4,)).append(["a"], rows(1))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_atomic(path) as part:
        part.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("EMOTION_CONCEPTS_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path


def test_texts_survive_a_torn_line(tmp_path):
    store = TextStore(tmp_path / "deep" / "texts.jsonl")
    assert store.texts() == {}
    store.append({"a": "one\nline", "b": "zwei – “2”"})
    whole = store.path.read_bytes()
    store.path.write_bytes(whole + b'["c", "to')
    assert store.texts() == {"a": "one\nline", "b": "zwei – “2”"}
    store.append({"c": "again"})
    assert store.texts()["c"] == "again" and store.path.read_bytes().startswith(whole)


def test_a_torn_line_longer_than_what_is_read_at_once_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "BLOCK", 4)
    store = TextStore(tmp_path / "t.jsonl")
    store.append({"a": "one"})
    for torn in (b'["b", "a torn text', b"x"):
        with open(store.path, "ab") as file:
            file.write(torn)
        store.append({"c": "three"})
    assert store.texts() == {"a": "one", "c": "three"}
    assert store.path.read_bytes().count(b"\n") == 3
    store.path.write_bytes(b"nothing but a torn line")
    store.append({"d": "four"})
    assert store.texts() == {"d": "four"}


def test_what_has_no_text_of_its_own_is_no_part_of_a_key(tmp_path):
    assert digest(tmp_path) == digest(str(tmp_path))
    assert digest(np.float32(0.5)) == digest(0.5)
    for part in (object(), {1, 2}, np.ones(2)):
        with pytest.raises(TypeError, match="cannot be part of a key"):
            digest(part)


def test_a_damaged_text_file_says_what_to_do(tmp_path):
    store = TextStore(tmp_path / "texts.jsonl")
    store.path.write_bytes(b'["a", "b"]\nno json\n')
    with pytest.raises(CacheError, match=r"delete it and run again"):
        store.texts()
