"""The command line: its commands, which are imported when they are used, and its exit codes."""

from __future__ import annotations

import functools
import importlib
import inspect
import io
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from onetrunk.errors import BadInput, Missing, OnetrunkError, printable
from onetrunk.objects import trusting

HELP = "One vision network for all of your image domains and tasks."
EXIT_CODES = "Exit codes: 0 done, 1 the work failed or was interrupted, 2 invalid input."
START, TRAIN, DOMAINS, USE = "Start", "Train and compare", "Add and change domains", "Use"
YES = Annotated[
    bool, typer.Option("--yes", help="Answer questions, such as on a large cache, with yes.")
]
TRUST = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="MODULE",
        help="Allow a run or pack to import this module, in which a head, norm, adapter or "
        "source of your own is defined; repeatable.",
    ),
]


@dataclass(frozen=True)
class Verb:
    """A command: its name, its group in the help, and a one-line summary.

    Its function is `command` in the module `onetrunk.cli.NAME`. Its help includes the `NOTES` (if
    any) and `EXAMPLES` of that module. If it `decodes` images, it has the option --yes, and if it
    `reads_runs`, the option --trust.
    """

    name: str
    group: str
    summary: str
    decodes: bool = False
    reads_runs: bool = True


VERBS = (
    Verb(
        "demo",
        START,
        "Train four networks, and one distilled from them, on bundled images.",
        reads_runs=False,
    ),
    Verb(
        "unify",
        START,
        "Turn folders of images into one network and a report.",
        decodes=True,
    ),
    Verb(
        "data",
        START,
        "Inspect a source of images: splits, classes, sizes, bad files.",
        decodes=True,
    ),
    Verb("recipes", START, "List the named recipes, or print one to start from.", reads_runs=False),
    Verb("train", TRAIN, "Train one network for all domains of a recipe.", decodes=True),
    Verb("eval", TRAIN, "Evaluate a run: scores, classes, confusions, worst images.", decodes=True),
    Verb("report", TRAIN, "Write an HTML page that compares runs with a baseline.", decodes=True),
    Verb(
        "compare",
        TRAIN,
        "Compare methods of adding domains, or baselines, in one table.",
        decodes=True,
    ),
    Verb(
        "add", DOMAINS, "Add a domain to a finished run; the trunk stays unchanged.", decodes=True
    ),
    Verb(
        "update",
        DOMAINS,
        "Train a domain's pack on changed classes or images, or undo that.",
        decodes=True,
    ),
    Verb("remove", DOMAINS, "Remove a domain from a run; its pack is kept.", reads_runs=False),
    Verb("info", USE, "Show a run's domains, tasks, classes, sizes, scores and history."),
    Verb("predict", USE, "Predict classes, numbers or maps for images.", decodes=True),
    Verb("export", USE, "Export a model to ONNX."),
)


class Commands(TyperGroup):
    """The commands; an unknown one is an error like any other."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise BadInput(
                "unknown command",
                got=args[0],
                available=[verb.name for verb in VERBS],
                try_="onetrunk --help",
            )
        return super().resolve_command(ctx, args)


class LazyCommand(TyperCommand):
    """A command whose module, and with it PyTorch, is imported when the command is used."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Parse the arguments of the real command."""
        (verb,) = (verb for verb in VERBS if verb.name == self.name)
        return load(verb).make_context(info_name, args, parent=parent, **extra)


def load(verb: Verb) -> Any:
    """Import the module of a command and build the command."""
    module = importlib.import_module(f"onetrunk.cli.{verb.name}")
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    notes = [" ".join(part.split()) for part in getattr(module, "NOTES", "").split("\n\n")]
    examples = "\b\n" + "\n".join(f"  {line}" for line in module.EXAMPLES.splitlines())
    text = "\n\n".join([verb.summary, *filter(None, notes), "[bold]Examples[/bold]", examples])
    function = module.command
    if verb.decodes:
        from onetrunk.cli.consent import asked  # imports the data package

        function = _with_option(function, "yes", YES, False, asked)
    if verb.reads_runs:
        function = _with_option(function, "trust", TRUST, None, lambda names: trusting(names or ()))
    app.command(verb.name, help=text)(function)
    return typer.main.get_command(app)


def _with_option(
    command: Callable[..., object],
    name: str,
    hint: Any,
    default: object,
    context: Callable[[Any], AbstractContextManager[object]],
) -> Callable[..., object]:
    """Return a command with one more option, whose value opens a context around the command."""

    @functools.wraps(command)
    def run(**given: Any) -> object:
        with context(given.pop(name, default)):
            return command(**given)

    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    own = [p.replace(annotation=hints[p.name]) for p in signature.parameters.values()]
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    option = inspect.Parameter(name, keyword, default=default, annotation=hint)
    run.__dict__.pop("__wrapped__")  # its own signature counts
    run.__annotations__ = {**hints, name: hint}
    vars(run)["__signature__"] = signature.replace(parameters=[*own, option])
    return run


def build() -> typer.Typer:
    """Build the command line with all commands, in groups, without importing their modules."""
    app = typer.Typer(
        cls=Commands,
        name="onetrunk",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback(help=HELP, epilog=EXIT_CODES)(_global_options)
    for verb in VERBS:
        app.command(verb.name, cls=LazyCommand, help=verb.summary, rich_help_panel=verb.group)(
            _placeholder
        )
    return app


def _placeholder() -> None:
    """Never called: `LazyCommand` calls the real command."""


def _show_version(value: bool) -> None:
    if value:
        print(f"onetrunk {version('onetrunk')}")
        raise typer.Exit


def _global_options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Options that come before the command."""


def main() -> None:
    """Run the console script.

    Errors are printed in one line each, without a traceback. Exit codes: 0, 1 (the work failed or
    was interrupted), 2 (bad input).
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that the terminal cannot show
    try:
        # the return value of a command, or an exit code
        code = build()(prog_name="onetrunk", standalone_mode=False)
        sys.stdout.flush()
        if code == 130:  # typer's code for Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except OnetrunkError as error:
        lines = [printable(line) for line in str(error).split("\n")]
        print("\n".join(f"error: {line}" for line in lines), file=sys.stderr)
        sys.exit(2 if isinstance(error, BadInput | Missing) else 1)
    except (KeyboardInterrupt, typer.Abort):
        # commands that can be continued raise an error with the command that does so
        print("Interrupted. Files that were finished are kept.", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except Exception as error:
        usage = getattr(error, "format_message", None)  # a usage error from typer
        if usage is None:
            raise
        context = getattr(error, "ctx", None)
        if context is not None and not sys.argv[1:]:
            print(context.get_help())
        else:
            print(f"error: {_usage_error(error, ' '.join(usage().split()))}", file=sys.stderr)
        sys.exit(2)


def _usage_error(error: Any, text: str) -> BadInput:
    """Convert a usage error of typer; `text` is its message."""
    context = getattr(error, "ctx", None)
    help_ = f"{context.command_path if context is not None else 'onetrunk'} --help"
    option = getattr(error, "option_name", None)
    if context is None or option is None or not hasattr(error, "possibilities"):
        return BadInput(text, try_=help_)
    options = [name for each in context.command.params for name in each.opts if name[:2] == "--"]
    return BadInput("unknown option", got=option, available=options, try_=help_)
