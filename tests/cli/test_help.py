"""Help, version and shell completion, which do not import PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from onetrunk.cli.app import VERBS, Verb, build, load, main

PROBE = """
import sys
from onetrunk.cli.app import build
try:
    build()({args!r})
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("args", [["--help"], ["--version"]])
def test_the_help_does_not_import_torch(args: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(args=args)], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "False"


def test_the_help_lists_every_verb_in_a_group() -> None:
    text = CliRunner().invoke(build(), ["--help"]).output
    for verb in VERBS:
        assert f" {verb.name} " in text
        assert verb.group in text


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_shows_an_example_that_names_it(verb: Verb) -> None:
    text = CliRunner().invoke(build(), [verb.name, "--help"]).output
    assert verb.summary.split()[0] in text
    assert f"onetrunk {verb.name}" in text.split("Examples")[1]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_option_is_explained(verb: Verb) -> None:
    for parameter in load(verb).params:
        assert parameter.help, parameter.name


def test_the_version() -> None:
    assert CliRunner().invoke(build(), ["--version"]).output == f"onetrunk {version('onetrunk')}\n"


def test_verbs_and_options_are_completed() -> None:
    def complete(words: str, position: int) -> list[str]:
        variables = {
            "_ONETRUNK_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(position),
        }
        code = "import sys; sys.argv = ['onetrunk']; from onetrunk.cli.app import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | variables,
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    assert complete("onetrunk tr", 1) == ["train"]
    assert "--purge" in complete("onetrunk data --pu", 2)


@pytest.mark.parametrize(
    ("words", "got", "try_"),
    [
        (["trian"], "trian", "train, or onetrunk --help"),
        (["nothing-like-it"], "nothing-like-it", "onetrunk --help"),
        (["predict", "--domian", "x"], "--domian", "--domain, or onetrunk predict --help"),
    ],
)
def test_unknown_verbs_and_options_suggest_similar_ones(
    words: list[str],
    got: str,
    try_: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["onetrunk", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"got: '{got}'" in line
    assert line.endswith(f"; try: {try_}")
