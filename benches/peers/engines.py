#!/usr/bin/env python3
"""Times pipe and its peers on the same work, and prints how many times as long each takes as pipe.

    python3 benches/peers/engines.py --pipe target/release/pipe --stages 1000

The work: layers of stages, each `cat` of two files of the layer before, `sh` for each. Scenarios: `cold` (all stages run),
`noop` (nothing changed), `leaf` (one source file has other bytes). Of `--repeat` runs the one with the least time counts:
noise only ever adds. An engine that is not installed is left out, and said so.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS = 10


class Stage:
    """`cat` of `sources` into `out`."""

    def __init__(self, layer: int, index: int, width: int):
        self.name = f"s{layer}_{index}"
        self.out = f"out/{layer}/{index}.txt"
        neighbours = dict.fromkeys((index, (index + 1) % width))
        if layer == 0:
            self.stages, self.sources = [], [f"src/{at}.txt" for at in neighbours]
        else:
            self.stages = [f"s{layer - 1}_{at}" for at in neighbours]
            self.sources = [f"out/{layer - 1}/{at}.txt" for at in neighbours]


def source(index: int, generation: int) -> str:
    return f"{index:08d}{generation:07d}\n"


def ninja(stages: list[Stage]) -> dict[str, str]:
    lines = ["rule cat\n  command = cat $in > $out\n"]
    lines += [f"build {stage.out}: cat {' '.join(stage.sources)}\n" for stage in stages]
    return {"build.ninja": "".join(lines)}


def make(stages: list[Stage]) -> dict[str, str]:
    last = " ".join(stage.out for stage in stages)
    rules = [f"{stage.out}: {' '.join(stage.sources)}\n\tcat $^ > $@\n" for stage in stages]
    return {"Makefile": f"MAKEFLAGS += -rR\n.PHONY: all\nall: {last}\n" + "".join(rules)}


def dvc(stages: list[Stage]) -> dict[str, str]:
    text = "stages:\n"
    for stage in stages:
        text += f"  {stage.name}:\n    cmd: cat {' '.join(stage.sources)} > {stage.out}\n"
        text += f"    deps: [{', '.join(stage.sources)}]\n    outs: [{stage.out}]\n"
    return {"dvc.yaml": text}


def snakemake(stages: list[Stage]) -> dict[str, str]:
    text = "rule all:\n    input: " + ", ".join(f'"{stage.out}"' for stage in stages) + "\n"
    for stage in stages:
        inputs = ", ".join(f'"{path}"' for path in stage.sources)
        text += f'rule {stage.name}:\n    input: {inputs}\n    output: "{stage.out}"\n    shell: "cat {{input}} > {{output}}"\n'
    return {"Snakefile": text}


def pipe(stages: list[Stage]) -> dict[str, str]:
    text = "name: peers\nstages:\n"
    for stage in stages:
        inputs = {f"i{at}": name for at, name in enumerate(stage.stages)}
        files = [] if inputs else stage.sources
        words = [f"in/{port}/f" for port in inputs] or files
        wired = ", ".join(f"{port}: {name}" for port, name in inputs.items())
        text += f"  {stage.name}:\n    uses: command\n    in: {{ {wired} }}\n"
        text += f"    with: {{ run: cat {' '.join(words)} > out/o/f, outputs: [o], files: [{', '.join(files)}] }}\n"
    return {"peers.yaml": text}


class Engine:
    """How an engine is written for, prepared and run; `made` is what it keeps between runs."""

    def __init__(self, program, write, run, made, prepare=None):
        self.program, self.write, self.run, self.made, self.prepare = program, write, run, made, prepare


def engines(pipe_program: str, jobs: int) -> dict[str, Engine]:
    quiet = [["dvc", "init", "--no-scm", "-q"], ["dvc", "config", "core.analytics", "false"]]
    return {
        "pipe": Engine(pipe_program, pipe, [pipe_program, "run", "peers.yaml", f"-j{jobs}"], [".pipe", "results"]),
        "ninja": Engine("ninja", ninja, ["ninja", "--quiet", f"-j{jobs}"], [".ninja_log", ".ninja_deps"]),
        "n2": Engine("n2", ninja, ["n2", f"-j{jobs}"], [".n2_db"]),
        "make": Engine("make", make, ["make", "-s", f"-j{jobs}"], []),
        "dvc": Engine("dvc", dvc, ["dvc", "repro", "-q"], ["dvc.lock", ".dvc/cache", ".dvc/tmp"], quiet),
        "snakemake": Engine(
            "snakemake", snakemake, ["snakemake", f"-c{jobs}", "-q", "all", "--scheduler", "greedy"], [".snakemake"]
        ),
    }


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall time and processor time, children included, in seconds."""
    before, since = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wall, after = time.perf_counter() - since, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def memory(command: list[str], folder: Path) -> float:
    """Largest memory of one process in MiB, as GNU time tells it: what Python starts itself inherits the peak of Python."""
    program = shutil.which("time")
    if program is None:
        return float("nan")
    with tempfile.NamedTemporaryFile("r") as told:
        quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run([program, "-f", "%M", "-o", told.name, *command], cwd=folder, check=True, **quiet)
        return float(told.read()) / 1024


def forget(engine: Engine, folder: Path) -> None:
    """Removes all that was made, so that every stage runs again."""
    for made in engine.made:
        path = folder / made
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in (folder / "out").rglob("*.txt"):
        path.unlink()


def measure(engine: Engine, stages: list[Stage], width: int, repeat: int) -> tuple[dict[str, tuple[float, float]], float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "src").mkdir()
        for index in range(width):
            (folder / f"src/{index}.txt").write_text(source(index, 0))
        for layer in range(LAYERS):
            (folder / f"out/{layer}").mkdir(parents=True)
        for path, text in engine.write(stages).items():
            (folder / path).write_text(text)
        for command in engine.prepare or []:
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        found = {"cold": [], "noop": [], "leaf": []}
        for turn in range(repeat):
            forget(engine, folder)
            found["cold"].append(timed(engine.run, folder))
            # The first run after a cold one may still put things in order.
            subprocess.run(engine.run, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            found["noop"].append(timed(engine.run, folder))
            (folder / "src/0.txt").write_text(source(0, turn + 1))
            found["leaf"].append(timed(engine.run, folder))
        # The last run changed a file; one more brings all up to date, and the next has nothing to do.
        subprocess.run(engine.run, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        idle = memory(engine.run, folder)
    times = {scenario: (min(wall for wall, _ in runs), min(cpu for _, cpu in runs)) for scenario, runs in found.items()}
    return times, idle


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pipe", default="pipe", help="the program to compare with")
    arguments.add_argument("--stages", type=int, default=1000)
    arguments.add_argument("--engines", default="pipe,ninja,n2,make,dvc,snakemake")
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--jobs", type=int, default=os.cpu_count())
    given = arguments.parse_args()
    found_pipe = shutil.which(given.pipe)
    if found_pipe is None:
        sys.exit(f"there is no program `{given.pipe}`: name it with --pipe")
    width = max(1, given.stages // LAYERS)
    stages = [Stage(layer, index, width) for layer in range(LAYERS) for index in range(width)]
    known = engines(str(Path(found_pipe).resolve()), given.jobs)
    times, idle = {}, {}
    for name in dict.fromkeys(["pipe", *given.engines.split(",")]):
        if name not in known:
            sys.exit(f"there is no engine `{name}`: known are {', '.join(known)}")
        if shutil.which(known[name].program) is None:
            print(f"{name}: not installed, left out", file=sys.stderr)
            continue
        times[name], idle[name] = measure(known[name], stages, width, given.repeat)
    print(f"{len(stages)} stages, {given.jobs} jobs; seconds (processor seconds), and wall time over that of pipe")
    for scenario in ("cold", "noop", "leaf"):
        for name, measured in times.items():
            wall, cpu = measured[scenario]
            ratio = wall / times["pipe"][scenario][0]
            print(f"{scenario:5} {name:10} {wall:9.3f} ({cpu:8.3f})  ×{ratio:.2f}")
    for name, most in idle.items():
        print(f"noop memory {name:10} {most:6.1f} MiB  ×{most / idle['pipe']:.2f}")


main()
