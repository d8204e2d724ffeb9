"""Fetch source packages in pinned versions with the ordinary clients of their registries.

Every download is kept under ROOT/.pocket, so that a second run needs no network. Registry addresses
are the clients' own business: none is written down here.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

from sheet import WORK


def npm(name: str, version: str) -> Path:
    """Return the unpacked folder of an npm package."""
    home = WORK / "npm" / f"{name.strip('@').replace('/', '-')}-{version}"
    if not (home / "package").is_dir():
        home.mkdir(parents=True, exist_ok=True)
        archive = home.with_name(home.name + ".tgz")
        if not archive.exists():
            _run(["npm", "pack", f"{name}@{version}", "--silent"], home.parent)
        with tarfile.open(archive) as tar:
            tar.extractall(home, filter="data")
    return home / "package"


def debian(name: str, version: str) -> Path:
    """Return the unpacked files of a Debian package, relative to the root folder."""
    home = WORK / "debian" / f"{name}-{version}"
    if not (home / "usr").is_dir():
        home.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", f"{name}={version}"], home)
        (archive,) = home.glob("*.deb")
        _run(["dpkg", "-x", archive.name, "."], home)
    return home


def pypi(name: str, version: str) -> Path:
    """Return a folder for sys.path with a package that only the tools need."""
    home = WORK / "pypi" / f"{name}-{version}"
    if not home.is_dir():
        command = ["python3", "-m", "uv", "pip", "install", "--quiet", "--no-deps"]
        place = ["--target", str(home), "--python", sys.executable]
        _run([*command, *place, f"{name}=={version}"], WORK)
    return home


def _run(command: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, cwd=folder, check=True)
