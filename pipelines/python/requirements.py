"""Refuses to run with other packages than those that requirements.txt pins: the result is cached under these."""

import sys
from importlib import metadata
from pathlib import Path

FILE = Path(__file__).with_name("requirements.txt")


def check() -> None:
    """Ends the program, and says what to do, unless every pinned version is the one installed."""
    problems = []
    for line in FILE.read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        name, pinned, version = (part.strip() for part in line.partition("=="))
        if not pinned or not version:
            problems.append(f"`{line}` pins no version: write {line}==VERSION")
            continue
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            problems.append(f"{name} is not installed, {version} is needed")
            continue
        if installed != version:
            problems.append(f"{name} is {installed}, {version} is needed")
    if problems:
        print("\n".join(problems), file=sys.stderr)
        print(f"this is {sys.executable}; activate the right environment, or: pip install -r {FILE.name}", file=sys.stderr)
        sys.exit(1)
