"""Make .venv from a bare python3: the pinned packages and onetrunk itself, installed by uv.

Runs before anything is installed, so it uses the standard library alone. Debian's python3 may lack
pip and the means to make a venv with pip in it; uv is then found on the PATH, by the pip of another
package, or unpacked from Debian's own pip wheel. A stamp makes the second call return at once.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / ".ready"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
UV = "uv>=0.9"


def wanted() -> str:
    """What the environment depends on."""
    files = ("requirements.txt", "pyproject.toml", "tools/setup.py")
    text = b"".join((ROOT / name).read_bytes() for name in files)
    return hashlib.sha256(text + str(ROOT).encode()).hexdigest()


def run(*command: str | Path, **variables: str) -> bool:
    """Run a command, loudly; did it end well?"""
    return subprocess.run([str(c) for c in command], env=os.environ | variables).returncode == 0


def quiet(*command: str) -> bool:
    """Does this command work here at all?"""
    return subprocess.run(command, capture_output=True).returncode == 0


def find_uv() -> list[str]:
    """A command that runs uv, fetched into .venv where this machine has none."""
    if shutil.which("uv"):
        return ["uv"]
    place = VENV / "uv"
    if not (place / "uv").exists():
        pip = find_pip()
        if pip is None or not run(*pip, "install", "-q", "--target", place, UV):
            sys.exit(
                "setup: expected uv, or pip to fetch it with; this python3 has neither.\n"
                "try: install one, for example: apt-get install python3-venv (Debian, Ubuntu)"
            )
    found = [path for path in place.rglob("uv*") if path.name in ("uv", "uv.exe")]
    found = [path for path in found if path.is_file() and os.access(path, os.X_OK)]
    return [str(found[0])]


def find_pip() -> list[str | Path] | None:
    """pip of this python3, of ensurepip, or out of Debian's wheel of it (no root is needed)."""
    if quiet(sys.executable, "-m", "pip", "--version"):
        return [sys.executable, "-m", "pip"]
    if quiet(str(PYTHON), "-m", "ensurepip"):
        return [PYTHON, "-m", "pip"]
    wheels = glob.glob("/usr/share/python-wheels/pip-*.whl")
    if not wheels and shutil.which("apt-get") and shutil.which("dpkg"):
        folder = Path(tempfile.mkdtemp())
        subprocess.run(["apt-get", "download", "python3-pip-whl"], cwd=folder, capture_output=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(folder)])
        wheels = glob.glob(f"{folder}/usr/share/python-wheels/pip-*.whl")
    return [sys.executable, f"{wheels[0]}/pip"] if wheels else None


def main() -> None:
    """Set up, or return at once where that was done."""
    if sys.version_info < (3, 11):
        sys.exit(
            f"setup: expected Python 3.11 or newer, came {sys.version.split()[0]}; "
            "try: make PYTHON=python3.12 …"
        )
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted():
        return
    print("setting up .venv (about 6 GB, mostly torch with CUDA; a few minutes)", flush=True)
    if not PYTHON.exists():
        venv.create(VENV, with_pip=False, symlinks=os.name != "nt")
    uv = find_uv()
    install = [*uv, "pip", "install", "--python", str(PYTHON)]
    if not run(*install, "-r", ROOT / "requirements.txt"):
        sys.exit("setup: the packages could not be installed; try: see uv's message above")
    if not run(*install, "--no-deps", "-e", ROOT):
        sys.exit("setup: onetrunk itself could not be installed; try: see uv's message above")
    STAMP.write_text(wanted())


if __name__ == "__main__":
    main()
