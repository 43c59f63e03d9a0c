"""Where computed things are kept, and how they survive a kill.

`cache_dir` names the user's cache; `write_atomic` replaces a file whole or not at all; `RowStore`
(arrays) and `TextStore` only ever append, and lose at most what is being written. What is stored,
and under which key, is the business of the modules that call this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import platformdirs
from filelock import FileLock

from emotion_concepts.errors import CacheError

BLOCK = 65536  # bytes that are read at once from the end of a file


def cache_dir() -> Path:
    """Return the cache folder: ``$EMOTION_CONCEPTS_CACHE`` or the platform's user cache.

    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, EMOTION_CONCEPTS_CACHE="my-cache"):
    ...     str(cache_dir())
    'my-cache'
    """
    chosen = os.environ.get("EMOTION_CONCEPTS_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("emotion-concepts"))


def digest(*parts: object, length: int = 16) -> str:
    """Return a short SHA-256 of JSON-able parts, the same on every machine.

    Paths count as their text, numbers of NumPy as plain ones.

    Raises
    ------
    TypeError
        For a part of any other kind, whose text might not tell it from another.

    Examples
    --------
    >>> digest("a", 1) == digest("a", np.int64(1)) != digest("a", 2)
    True
    """
    packed = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=_jsonable)
    return hashlib.sha256(packed.encode()).hexdigest()[:length]


def _jsonable(part: object) -> object:
    if isinstance(part, Path):
        return str(part)
    if isinstance(part, np.generic):
        return part.item()
    raise TypeError(f"a {type(part).__name__} cannot be part of a key")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "text.txt")
    ...     _ = path.write_bytes(b"calm")
    ...     file_sha256(path) == hashlib.sha256(b"calm").hexdigest()
    True
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it over `path` if the block succeeds.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "text.txt")
    ...     _ = path.write_text("whole")
    ...     with contextlib.suppress(KeyboardInterrupt), write_atomic(path) as part:
    ...         _ = part.write_text("hal")
    ...         raise KeyboardInterrupt
    ...     path.read_text(), os.listdir(folder)
    ('whole', ['text.txt'])
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


class TextStore:
    """Texts found by string key, appended batch by batch as lines of JSON.

    A line that was torn by a kill is dropped, and overwritten by the next append.

    Parameters
    ----------
    path : Path
        Made on the first append.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     store = TextStore(Path(folder, "texts.jsonl"))
    ...     store.append({"first": "I feel calm."})
    ...     store.append({"second": "The bus stops at the corner."})
    ...     store.texts()
    {'first': 'I feel calm.', 'second': 'The bus stops at the corner.'}
    """

    def __init__(self, path: Path):
        self.path = path

    def texts(self) -> dict[str, str]:
        """Return {key: text} of the complete lines."""
        if not self.path.exists():
            return {}
        *lines, _torn = self.path.read_bytes().split(b"\n")
        try:
            return dict(json.loads(line) for line in lines)
        except ValueError as error:
            raise CacheError(
                f"{self.path} is damaged ({error}); delete it and run again"
            ) from error

    def append(self, texts: Mapping[str, str]) -> None:
        """Add texts under their keys; synced before it returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            file.seek(_after_last_line(file))
            file.truncate()
            for item in texts.items():
                file.write(json.dumps(item, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold, while the context lasts, the lock of this store against other processes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            yield


def _after_last_line(file: BinaryIO) -> int:
    """Return where the complete lines of a file end; only its end is read."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - BLOCK)
        file.seek(start)
        if (at := file.read(end - start).rfind(b"\n")) >= 0:
            return start + at + 1
        end = start
    return 0


class RowStore:
    """Rows of one fixed shape, found by string key, appended batch by batch.

    Two files: ``rows.f32`` holds float32 rows back to back, ``index.txt`` one key a line. Rows are
    written and synced before their keys, so after a kill the index never names a row that is not
    there: whatever lies beyond the index is overwritten by the next append.

    Parameters
    ----------
    folder : Path
        Made on the first append.
    shape : tuple of int
        Shape of one row, e.g. ``(n_layers, d_model)``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     store = RowStore(Path(folder, "rows"), (3,))
    ...     store.append(["first"], np.array([[1, 2, 3]]))
    ...     store.append(["second", "first"], np.array([[4, 5, 6], [7, 8, 9]]))
    ...     store.keys(), store.open().tolist()
    ({'first': 0, 'second': 1}, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    """

    def __init__(self, folder: Path, shape: Sequence[int]):
        self.folder = folder
        self.shape = tuple(int(n) for n in shape)
        self._rows, self._index = folder / "rows.f32", folder / "index.txt"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return 4 * int(np.prod(self.shape))

    def keys(self) -> dict[str, int]:
        """Return {key: row number} of the complete rows."""
        if not self._index.exists():
            return {}
        text = self._index.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1].split()  # a torn last line is not a key
        size = self._rows.stat().st_size if self._rows.exists() else 0
        if size < len(whole) * self.row_bytes:
            raise CacheError(
                f"{self.folder} is damaged (its rows are shorter than its index); "
                "delete that folder and run again"
            )
        return {key: row for row, key in enumerate(whole)}

    def append(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Add rows ``[n, *shape]`` under `keys`; safe against kills and other processes."""
        if rows.shape != (len(keys), *self.shape):
            raise CacheError(f"rows {rows.shape} do not fit {len(keys)} keys of {self.shape}")
        with self.lock():
            known = self.keys()
            fresh = {key: n for n, key in enumerate(keys) if key not in known}  # each key once
            keys, rows = list(fresh), rows[list(fresh.values())]
            with open(self._rows, "r+b" if self._rows.exists() else "w+b") as file:
                file.seek(len(known) * self.row_bytes)
                file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
                file.truncate()
                os.fsync(file.fileno())
            with open(self._index, "r+b" if self._index.exists() else "w+b") as file:
                file.seek(sum(len(key) + 1 for key in known))
                file.write("".join(f"{key}\n" for key in keys).encode())
                file.truncate()
                os.fsync(file.fileno())

    def open(self) -> np.ndarray:
        """Return all complete rows ``[n, *shape]`` as a read-only memory map."""
        count = len(self.keys())
        if not count:
            return np.empty((0, *self.shape), dtype=np.float32)
        return np.memmap(self._rows, dtype="<f4", mode="r", shape=(count, *self.shape))

    @contextlib.contextmanager
    def lock(self, name: str = "append") -> Iterator[None]:
        """Hold, while the context lasts, a lock of this store against other processes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{name}.lock"):
            yield
