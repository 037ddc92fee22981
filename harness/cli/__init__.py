"""The command line. Verbs are imported when they are used, so that `--help` answers at once."""

from __future__ import annotations

import importlib
import signal
import sys
import traceback
from typing import NoReturn

import click

from harness import __version__, console
from harness.errors import ExitCode, HarnessError, Interrupted

# Module under harness.cli, and the line that `harness --help` shows; the order is the road's.
VERBS = {
    "run": "Take a model through every stage, from its checkpoint to a report.",
    "compile": "Compile a model into a package for the phone.",
    "build": "Build the native runtime.",
    "render": "Render the Gradle project of the app.",
    "package": "Make the signed APK.",
    "deploy": "Install the APK and push the model.",
    "test": "Run the test suites on the device.",
    "measure": "Run the prompts and record every token's time.",
    "report": "Show a measurement as a table, JSON and an offline HTML page.",
    "tune": "Find the threads, variant and tile that run a model fastest.",
    "chat": "Talk to the model on the device.",
    "verify": "Hold a package's logits against a reference's.",
    "devices": "List devices and what keeps one from answering.",
    "phone": "Start, stop and look at virtual phones.",
    "models": "List and show recipes.",
    "doctor": "Say what is found, what is missing and what to do.",
    "config": "Show the settings in force and where each comes from.",
}


class LazyGroup(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"harness.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="harness")
def harness() -> None:
    """Build, deploy and measure language models on Android phones."""


def main() -> NoReturn:
    """Run the command line and exit with the code that `ExitCode` documents."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_run(sys.argv[1:]))


def _run(argv: list[str]) -> int:
    try:
        # Commands return nothing; a number is what one gave to `Context.exit`.
        code = harness.main(args=argv, prog_name="harness", standalone_mode=False)
        return code if isinstance(code, int) else ExitCode.OK
    except click.ClickException as problem:
        problem.show()
        return ExitCode.USAGE
    except HarnessError as failure:
        console.error(failure)
        return failure.exit_code
    except (KeyboardInterrupt, click.Abort):
        console.error(
            Interrupted(
                "stopped",
                cause="interrupted",
                remedy="run it again: stages that ended are not done again",
            )
        )
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.OK
    except Exception as bug:
        for line in traceback.format_exc().splitlines():
            console.detail(line)
        console.error(
            HarnessError(
                "this is a bug of harness",
                cause=f"{type(bug).__name__}: {bug}",
                remedy="run it again with -v and report what it prints",
            )
        )
        return ExitCode.BUG


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt
