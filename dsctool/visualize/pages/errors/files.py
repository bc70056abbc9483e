"""What the analysis of errors leaves in its folder."""

from __future__ import annotations

import json
from pathlib import Path

from dsctool.evaluation.error_analysis.study import ErrorStudy
from dsctool.files import write_text
from dsctool.visualize.pages.errors.figures import error_figures
from dsctool.visualize.pages.errors.page import error_page
from dsctool.visualize.pages.figures import save_figures


def write_errors(output: Path, study: ErrorStudy) -> None:
    """Write ``errors.json``, the pictures and ``errors.html`` to a folder that exists, each whole or not at all."""
    write_text(output / "errors.json", json.dumps(study.report) + "\n")
    save_figures(output, error_figures(study.report))
    write_text(output / "errors.html", error_page(study))
