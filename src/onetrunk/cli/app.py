"""The command line as a whole: its verbs, and how errors end it."""

from __future__ import annotations

import io
import os
import sys

import typer

from onetrunk.cli import (
    add,
    baselines,
    compare,
    data,
    demo,
    export,
    info,
    predict,
    recipes,
    remove,
    report,
    train,
    update,
)
from onetrunk.cli import eval as run_evaluation
from onetrunk.errors import BadInput, Missing, OnetrunkError, printable

HELP = "One vision network for all of your image domains and tasks."


def build() -> typer.Typer:
    """All verbs, in the order of a user's first day."""
    app = typer.Typer(
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback(help=HELP)(_verbs)
    app.command("demo", help=demo.HELP)(demo.demo)
    app.command("data", help=data.HELP)(data.data)
    app.command("recipes", help=recipes.HELP)(recipes.recipes)
    app.command("train", help=train.HELP)(train.train)
    app.command("info", help=info.HELP)(info.info)
    app.command("eval", help=run_evaluation.HELP)(run_evaluation.evaluate)
    app.command("predict", help=predict.HELP)(predict.predict)
    app.command("add", help=add.HELP)(add.add)
    app.command("update", help=update.HELP)(update.update)
    app.command("remove", help=remove.HELP)(remove.remove)
    app.command("compare", help=compare.HELP)(compare.verb)
    app.command("baselines", help=baselines.HELP)(baselines.baselines)
    app.command("report", help=report.HELP)(report.verb)
    app.command("export", help=export.HELP)(export.export_onnx)
    return app


def _verbs() -> None:
    """So that one verb alone would still be named."""


def main() -> None:
    """The console script: errors in one line, exit code 1 (failed) or 2 (bad input)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that this terminal cannot show
    try:
        code = build()(standalone_mode=False)  # what the verb returned, or a code
        sys.stdout.flush()
        if code == 130:  # how typer says Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except OnetrunkError as error:
        lines = [printable(line) for line in str(error).split("\n")]
        print("\n".join(f"error: {line}" for line in lines), file=sys.stderr)
        sys.exit(2 if isinstance(error, BadInput | Missing) else 1)
    except (KeyboardInterrupt, typer.Abort):
        print("stopped; what was done is kept: the same command goes on", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except Exception as error:
        usage = getattr(error, "format_message", None)  # a wrong option, as typer found it
        if usage is None:
            raise
        context = getattr(error, "ctx", None)
        if context is not None and not sys.argv[1:]:
            print(context.get_help())
        else:
            path = context.command_path if context is not None else "onetrunk"
            line = printable(" ".join(usage().split()))
            print(f"error: {line}; try: {path} --help", file=sys.stderr)
        sys.exit(2)
