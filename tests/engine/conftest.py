"""Training with a fake detector."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from dsctool.config.schema import Config
from dsctool.engine import trainer
from dsctool.engine.processes import LONE, Processes
from tests.engine.fakes import Build, FakeDetector, tiny_config


@pytest.fixture(scope="session")
def run(synthetic_root: Path) -> Callable[..., str]:
    """Trains a fake detector in a folder and returns what was shown; ``prepare`` sees the detector first."""

    def train(
        output: Path,
        config: Config | None = None,
        *,
        resume: bool = False,
        prepare: Build = lambda model: None,
        data: Path = synthetic_root,
        provenance: dict[str, str] | None = None,
        processes: Processes = LONE,
    ) -> str:
        def build(config: Config, *, num_classes: int) -> FakeDetector:
            model = FakeDetector(num_classes)
            prepare(model)
            return model

        out = io.StringIO()
        trainer.train(
            config or tiny_config(),
            data=data,
            output=output,
            resume=resume,
            device="cpu",
            console=Console(file=out),
            provenance=provenance,
            processes=processes,
            build=build,  # type: ignore[arg-type]
        )
        return out.getvalue()

    return train
