"""The shell around the subcommands: speed, help, errors, exit codes."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

import dsctool
from dsctool.cli import app as shell
from dsctool.errors import DataError

runner = CliRunner()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """``dsctool words`` as a whole process."""
    return subprocess.run([sys.executable, "-m", "dsctool", *words], capture_output=True, text=True, check=False)


def seconds(*words: str) -> float:
    """The fastest of three whole processes: what the machine is busy with besides does not count."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run(*words)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A subcommand ``break`` that raises the error put into the list."""
    errors: list[BaseException] = []

    def break_() -> None:
        raise errors[0]

    module = ModuleType("dsctool.cli.broken")
    module.break_ = break_  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dsctool.cli.broken", module)
    monkeypatch.setitem(shell.COMMANDS, "info", shell.Command("broken", "break_", "Break."))
    return errors


def test_help_answers_at_once() -> None:
    assert seconds("--help") < 0.5
    assert seconds("train", "--help") < 1


def test_overview_lists_every_command_with_its_line() -> None:
    result = runner.invoke(shell.app, ["--help"])
    assert result.exit_code == 0
    for name, command in shell.COMMANDS.items():
        assert f"  {name}" in result.stdout
        assert command.summary in result.stdout, f"{name}: too long for one line"


@pytest.mark.parametrize("name", list(shell.COMMANDS))
def test_each_command_has_help_with_an_example(name: str) -> None:
    command = shell.load_command(name)
    for leaf in getattr(command, "commands", {"": command}).values():
        assert f"\b\n    dsctool {name}" in (leaf.help or ""), f"{name} {leaf.name}: no example"
    assert runner.invoke(shell.app, [name, "--help"]).exit_code == 0


def test_examples_keep_their_lines() -> None:
    assert "\n      dsctool configs list\n      dsctool data check DIR\n" in run("--help").stdout
    assert "\n      dsctool configs diff htc_r50" in run("configs", "diff", "--help").stdout


def test_version() -> None:
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"dsctool {dsctool.__version__}\n")


@pytest.mark.parametrize(
    "words", [["nonsense"], ["--nonsense"], ["configs", "show"], ["configs", "list", "--nonsense"]]
)
def test_wrong_usage_exits_with_2(words: list[str]) -> None:
    result = run(*words)
    assert result.returncode == 2
    assert "Error: " in result.stderr
    assert result.stdout == ""


def test_an_error_is_one_plain_message_on_stderr() -> None:
    result = run("configs", "show", "x" * 200)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"dsctool: error: unknown configuration '{'x' * 200}'")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["--debug", "configs", "show", "nothing"], ["configs", "show", "nothing", "--debug"]]
)
def test_debug_shows_the_traceback(words: list[str]) -> None:
    result = run(*words)
    assert result.returncode == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "ConfigError: unknown configuration 'nothing'" in result.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DataError("a.json: image 7: no file"), "a.json: image 7: no file"),
        (FileNotFoundError(2, "No such file", "a.json"), "a.json: No such file"),
        (IsADirectoryError(21, "Is a directory", ".out.json.tmp", None, "out.json"), "out.json: Is a directory"),
        (OSError("no file is to blame"), "no file is to blame"),
    ],
)
def test_errors_of_library_and_system_exit_with_1(failing: list[BaseException], error: Exception, said: str) -> None:
    failing.append(error)
    result = runner.invoke(shell.app, ["info"])
    assert (result.exit_code, result.stderr) == (1, f"dsctool: error: {said}\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory."),
        (MemoryError("Unable to allocate 20.0 GiB for an array"), "out of memory (20.0 GiB more were asked for)."),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 20000000000 bytes."),
            "out of memory (18.63 GiB more were asked for).",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 512.00 MiB."),
            "out of GPU memory (512.00 MiB more were asked for).",
        ),
        (RuntimeError("unable to write to file </torch_7_1>: No space left on device (28)"), "out of memory."),
    ],
)
def test_running_out_of_memory_is_no_bug(failing: list[BaseException], error: Exception, said: str) -> None:
    failing.append(error)
    result = runner.invoke(shell.app, ["info"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"dsctool: error: {said} Smaller images")
    assert result.stderr.count("\n") == 1
    assert runner.invoke(shell.app, ["--debug", "info"]).exception is error


def test_interruption_exits_with_130(failing: list[BaseException]) -> None:
    failing.append(KeyboardInterrupt())
    result = runner.invoke(shell.app, ["info"])
    assert (result.exit_code, result.stderr) == (130, "dsctool: interrupted\n")


def test_exit_code_of_a_command_is_kept(failing: list[BaseException]) -> None:
    failing.append(typer.Exit(3))
    assert runner.invoke(shell.app, ["info"]).exit_code == 3


def test_pillow_is_silent_about_odd_files_and_others_are_not(
    failing: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing.append(typer.Exit(0))
    monkeypatch.setattr(sys, "argv", ["dsctool", "info"])
    with warnings.catch_warnings(record=True) as heard:
        with pytest.raises(SystemExit):
            shell.main()
        warnings.warn_explicit("Corrupt EXIF data", UserWarning, "x.py", 1, module="PIL.TiffImagePlugin")
        warnings.warn_explicit("mine", UserWarning, "x.py", 1, module="mine")
    assert [str(warning.message) for warning in heard] == ["mine"]


def test_a_bug_is_one_line_with_its_place(
    failing: list[BaseException], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(ZeroDivisionError("by zero"))
    monkeypatch.setattr(sys, "argv", ["dsctool", "info"])
    with pytest.raises(SystemExit) as caught:
        shell.main()
    assert caught.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("dsctool: internal error: ZeroDivisionError at ")
    assert lines[0].endswith("by zero")
    assert "--debug" in lines[1]


@pytest.mark.parametrize("words", ["--help", "configs show htc_tiny", "configs list"])
def test_a_reader_that_goes_away_causes_no_message(words: str) -> None:
    command = f"{sys.executable} -m dsctool {words} | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.stderr == ""
