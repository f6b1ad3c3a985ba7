#!/usr/bin/env python3
"""Times how fast pipe and its peers learn the content of files, and prints how many times as long each takes as pipe.

    python3 benches/peers/hashing.py --pipe target/release/pipe

`large`: one file that nobody has hashed yet, in the page cache: `pipe run -n` of a stage that reads it; `b3sum` and
`sha256sum` hash it. `small`: a folder of many files, hashed for the first time (`dvc add`, which also links or copies
them into its cache), then looked at unchanged (`dvc status`). `pipe, and runs` also runs the stage, a program which
gets copies of its own. Of `--repeat` runs the one with the least wall time counts: noise only ever adds. A peer that is not
installed is left out, and said so.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

PIPELINE = "name: hashing\nstages:\n  read: {{ uses: command, with: {{ run: 'true > out/o/f', files: [{0}], outputs: [o] }} }}\n"


def timed(command: list[str], folder: Path) -> float:
    since = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - since


def forget(folder: Path) -> None:
    """What pipe knows of the folder, so that it hashes again."""
    for name in (".pipe", "results", "pipeline.lock"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def large(pipe: str, folder: Path, size: int, repeat: int, threads: int) -> dict[str, float]:
    block = os.urandom(1 << 20)
    with open(folder / "large.bin", "wb") as file:
        for _ in range(size >> 20):
            file.write(block)
    (folder / "pipeline.yaml").write_text(PIPELINE.format("large.bin"))
    peers = {
        "b3sum": ["b3sum", "--num-threads", str(threads), "large.bin"],
        "sha256sum": ["sha256sum", "large.bin"],
    }
    best: dict[str, float] = {}
    for _ in range(repeat):
        forget(folder)
        times = {"pipe": timed([pipe, "run", "-n", "pipeline.yaml", "-j", str(threads)], folder)}
        forget(folder)
        times["pipe, and runs"] = timed([pipe, "run", "pipeline.yaml", "-j", str(threads)], folder)
        times |= {name: timed(command, folder) for name, command in peers.items() if shutil.which(command[0])}
        best = {name: min(took, best.get(name, took)) for name, took in times.items()}
    (folder / "large.bin").unlink()
    return best


def small(pipe: str, folder: Path, count: int, repeat: int) -> dict[str, dict[str, float]]:
    data = folder / "data"
    for at in range(count):
        path = data / f"{at % 100:02}" / f"{at}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1024) + at.to_bytes(8, "big"))
    (folder / "pipeline.yaml").write_text(PIPELINE.format("data"))
    has_dvc = shutil.which("dvc") is not None
    if has_dvc:
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        subprocess.run(["dvc", "init", "-q"], cwd=folder, check=True)
    first: dict[str, float] = {}
    again: dict[str, float] = {}
    run = [pipe, "run", "pipeline.yaml"]
    for _ in range(repeat):
        forget(folder)
        times = {"pipe": timed([pipe, "run", "-n", "pipeline.yaml"], folder)}
        forget(folder)
        times["pipe, and runs"] = timed(run, folder)
        if has_dvc:
            for name in (".dvc/cache", ".dvc/tmp", "data.dvc"):
                path = folder / name
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            times["dvc"] = timed(["dvc", "add", "data"], folder)
        first = {name: min(took, first.get(name, took)) for name, took in times.items()}
        # The first look at young files only finds out that they have settled.
        timed(run, folder)
        times = {"pipe": timed(run, folder)}
        if has_dvc:
            times["dvc"] = timed(["dvc", "status"], folder)
        again = {name: min(took, again.get(name, took)) for name, took in times.items()}
    return {"first": first, "unchanged": again}


def show(what: str, times: dict[str, float]) -> None:
    for name, took in times.items():
        print(f"{what:<28}{name:<16}{took:10.4f} s{took / times['pipe']:10.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipe", required=True)
    parser.add_argument("--size", type=int, default=2 << 30, help="bytes of the large file")
    parser.add_argument("--count", type=int, default=10_000, help="how many small files")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    pipe = str(Path(options.pipe).resolve())
    missing = [name for name in ("b3sum", "sha256sum", "dvc") if shutil.which(name) is None]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as folder:
        times = large(pipe, Path(folder), options.size, options.repeat, options.threads)
        show(f"one file of {options.size >> 20} MiB", times)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as folder:
        for what, times in small(pipe, Path(folder), options.count, options.repeat).items():
            show(f"{options.count} files, {what}", times)


if __name__ == "__main__":
    main()
