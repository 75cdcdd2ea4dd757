"""The entry point: which commands there are, and how errors end."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError, UnknownCommandError, UnknownOptionError

from diabolo.cli.catalog import UsageError, cards, find_card
from diabolo.cli.flags import offered, with_flags
from diabolo.cli.models import STDIN
from diabolo.launch import launched

__all__ = ["main"]

# What a user can cause. Anything else is a fault of the program and keeps its traceback.
USER_ERRORS = (ValueError, TypeError, OSError, ArithmeticError, LookupError, ImportError, MemoryError)

HELP = (
    "Every autoencoder job on data files: learn, embed, rebuild, score, generate, find anomalies, report.\n\n"
    "Data are CSV, Parquet, NPY or NPZ. Results go to the file named by --output, in the format of its suffix, "
    "or as CSV to standard output. Start with: diabolo demo"
)

GENERATED = ("fit", "anomalies", "impute", "tune")  # commands with a flag for each parameter of a model

EPILOGUE = "--debug, or DIABOLO_DEBUG=1, shows the traceback of an error."


def _build(tokens: list[str]) -> App:
    """Make the application; the flags of a model's parameters are only made for the command that needs them."""
    from diabolo.cli import (
        anomalies,
        commands,
        compress,
        demo,
        denoise,
        fit,
        impute,
        info,
        latent,
        predict,
        recommend,
        synthesize,
        tuning,
    )

    app = App(
        name="diabolo",
        help=HELP,
        help_epilogue=EPILOGUE,
        help_format="plaintext",
        version=_version,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    functions: tuple[Callable[..., int], ...] = (
        demo.demo,
        fit.fit,
        commands.embed,
        commands.reconstruct,
        commands.score,
        commands.sample,
        latent.interpolate,
        synthesize.synthesize,
        anomalies.anomalies,
        impute.impute,
        denoise.denoise,
        denoise.restore,
        predict.predict,
        tuning.tune,
        tuning.advise,
        compress.compress,
        compress.decompress,
        commands.report,
        info.info,
        info.models,
    )
    for position, function in enumerate(functions):
        name = function.__name__
        wanted = name in GENERATED and tokens[:1] == [name]
        made = with_flags(function, find_card(_model(tokens), lines=name == "fit")) if wanted else function
        app.command(made, name=name, sort_key=position)
    app.command(recommend.recommender_app(functions.index(denoise.denoise)))
    app.command(latent.latent(sort_key=len(functions)))
    return app


def _version() -> str:
    from importlib.metadata import version

    return version("diabolo")


def _model(tokens: list[str]) -> str:
    """Find the model whose flags are wanted; the flags must be known before the rest can be parsed."""
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if token == "--model" and following:
            return following
        if token.startswith("--model="):
            return token.removeprefix("--model=")
    from diabolo.cli.fit import default_model

    return default_model("imputer" if tokens[:1] == ["impute"] or "--imputer" in tokens else None)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        0 when all went well, 1 for an error in data or parameters, 2 for a command line that cannot be understood, 130 when
        interrupted.
    """
    # Small networks on a busy machine: threads that wait by spinning for one another make training many times slower. torch
    # reads this when it is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    tokens = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in tokens or os.environ.get("DIABOLO_DEBUG", "0") not in ("", "0")
    tokens = [str(STDIN) if token == "-" else token for token in tokens if token != "--debug"]
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        # Without a frame library rows travel without names; they have been put in the model's order by then.
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        try:
            if launched()[1] > 1 and tokens[:1] != ["fit"]:
                raise UsageError(
                    "of the commands only `diabolo fit` runs in several processes; start this one without torchrun"
                )
            code = _build(tokens)(tokens)
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except BrokenPipeError:
            # The reader, such as `head`, has enough. What is still buffered must not fail at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            return _fail("interrupted", 130, debug=False)
        except (CycloptsError, UsageError) as error:
            command = f"{tokens[0]} " if tokens and not isinstance(error, UnknownCommandError) else ""
            return _fail(f"{_usage_message(error, tokens)}\nSee: diabolo {command}--help", 2, debug)
        except USER_ERRORS as error:
            return _fail(_message(error), 1, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    prefix = "" if code == 130 else "error: "
    print(f"{prefix}{message}", file=sys.stderr)
    return code


def _message(error: BaseException) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def _usage_message(error: Exception, tokens: list[str]) -> str:
    """Say what is wrong with the command line, and which models have a flag that this one lacks."""
    message = str(error).strip()
    if not isinstance(error, UnknownOptionError) or not tokens or tokens[0] not in GENERATED:
        return message
    flags = {t.split("=")[0].removeprefix("--").replace("-", "_") for t in tokens if t.startswith("--")}
    current = {f.name for f in offered(find_card(_model(tokens), lines=tokens[0] == "fit"))}
    owners = [c.command for c in cards().values() if {f.name for f in offered(c)} & (flags - current)]
    if not owners:
        return message
    return f"{message.split(' Did you mean')[0]} It is a flag of --model {' and of --model '.join(owners)}."


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    if launched()[0] == 0:  # of several processes that train one model
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
