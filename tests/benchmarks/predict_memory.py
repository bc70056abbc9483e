"""What ``dsctool predict`` holds in memory, and whether it goes on after kills: ``python -m ... [FEW] [MANY]``.

Predicts FEW (200) and MANY (2,000) small images with a tiny detector and prints the peak memory of both runs; then runs
MANY again, kills it by SIGKILL three times, resumes it, and compares the files with those of the run that ended.
"""

from __future__ import annotations

import filecmp
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.processes import measured
from tests.cli.test_predict import checkpoint_of, save_image

WORK = "predictions.work.jsonl"


def command(checkpoint: Path, photos: Path, output: Path, *words: str) -> list[str]:
    """The command line of a run."""
    paths = [str(path) for path in (checkpoint, photos)]
    return [sys.executable, "-m", "dsctool", "predict", *paths, "--output", str(output), "--device", "cpu", *words]


def killed(words: list[str], work: Path, *, after: int) -> None:
    """Run a command until its work file has so many lines."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and (not work.exists() or work.read_bytes().count(b"\n") < after):
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)


def main(few: int = 200, many: int = 2000) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        checkpoint = checkpoint_of(root, "htc_tiny")
        for count in (few, many):
            for number in range(count):
                save_image(root / str(count) / f"{number:06}.png", seed=number)
        runs = [measured(command(checkpoint, root / str(count), root / f"out{count}")) for count in (few, many)]
        peaks = [run.peak for run in runs]
        print(
            f"peak memory: {peaks[0]:.0f} MiB at {few} images, {peaks[1]:.0f} MiB at {many} ({peaks[1] / peaks[0]:.3f})"
        )
        words = command(checkpoint, root / str(many), root / "killed", "--resume")
        for kill in range(1, 4):
            killed(words, root / "killed" / WORK, after=kill * many // 4)
        subprocess.run(words, check=True, capture_output=True)
        files = sorted(path.relative_to(root / f"out{many}") for path in (root / f"out{many}").rglob("*.j*"))
        _, wrong, missing = filecmp.cmpfiles(root / f"out{many}", root / "killed", map(str, files), shallow=False)
        print(f"killed three times and resumed: {len(files)} files, {len(wrong)} differ, {len(missing)} missing")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
