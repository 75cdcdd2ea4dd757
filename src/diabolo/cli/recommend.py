"""The commands that learn from events who chooses what, and that recommend."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from diabolo.cli.catalog import UsageError, find_card
from diabolo.cli.fit import Quiet
from diabolo.cli.models import DataFile, Output

__all__ = ["load_recommender", "read_events", "recommend", "recommend_fit", "recommender_app"]

CLOSED = {"ease": "EASE", "item-popularity": "ItemPopularity", "graph-filter": "GraphFilter"}


def recommender_app(position: int) -> App:
    """Make the command `diabolo recommend`, and `diabolo recommend fit` below it; ``position`` is its place in the list."""
    app = App(name="recommend", help_format="plaintext", result_action="return_value", sort_key=position)
    app.command(recommend_fit, name="fit")
    app.default(recommend)
    return app


def recommend_fit(
    events: DataFile,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Folder to keep the recommender in.")],
    user: Annotated[str, Parameter(help="Column with the user.")] = "user",
    item: Annotated[str, Parameter(help="Column with the item.")] = "item",
    rating: Annotated[
        str | None, Parameter(help="Column with a rating, a count or another weight.", show_default=False)
    ] = None,
    time: Annotated[str | None, Parameter(help="Column with the time.", show_default=False)] = None,
    min_rating: Annotated[
        float | None, Parameter(help="Ratings below are not taken for a choice.", show_default=False)
    ] = None,
    values: Annotated[
        Literal["binary", "log", "raw"], Parameter(help="What models see: a one, a logarithm, or the rating itself.")
    ] = "binary",
    model: Annotated[
        str | None,
        Parameter(
            help=f"{', '.join(CLOSED)}, mult-vae or another model; several, separated by commas, are blended.",
            metavar="NAME,...",
            show_default=False,
        ),
    ] = None,
    evaluate: Annotated[
        Literal["strong", "weak", "time"] | None,
        Parameter(
            help="Also measure, by copies fitted to a part of the events: on users or on choices held out, or on the last.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, Parameter(help="Seed.", show_default=False)] = None,
    quiet: Quiet = False,
) -> int:
    """Learn from events, one choice a row, who chooses what."""
    import diabolo
    from diabolo.cli.data import say
    from diabolo.cli.output import check_place

    check_place(output)
    frame = read_events(events)
    recommender = diabolo.Recommender(
        None if model is None else _models(model),
        user=user,
        item=item,
        rating=rating,
        time=time,
        min_rating=min_rating,
        values=values,
        random_state=seed,
        verbose=0 if quiet else 1,
    )
    if evaluate is not None:
        found = recommender.evaluate(frame, split=evaluate)
        say("\n".join(f"{name}: {value:.4g}" for name, value in found.items()))
    recommender.fit(frame)
    recommender.save(output)
    if not quiet:
        rows = recommender.histories_
        names = ", ".join(type(m).__name__ for m in recommender.models_)
        say(f"{rows.shape[0]} users, {rows.shape[1]} items, {rows.nnz} choices: {names}, kept in {output}")
        for name, quality in recommender.quality_.items():
            say(f"NDCG on users held out, {name}: {quality:.4f}")
    return 0


def recommend(
    model: Annotated[Path, Parameter(help="Folder that `diabolo recommend fit` wrote.")],
    events: Annotated[
        Path | None, Parameter(help="Events of new users to recommend to, a data file.", show_default=False)
    ] = None,
    /,
    *,
    user: Annotated[
        str | None,
        Parameter(help="Known users, separated by commas; all by default.", metavar="ID,...", show_default=False),
    ] = None,
    history: Annotated[
        str | None,
        Parameter(
            help="Items that a single new user chose, separated by commas.", metavar="ID,...", show_default=False
        ),
    ] = None,
    similar: Annotated[
        str | None, Parameter(help="List items similar to this one instead.", metavar="ID", show_default=False)
    ] = None,
    why: Annotated[
        str | None,
        Parameter(help="Say which past choices speak for this item instead.", metavar="ID", show_default=False),
    ] = None,
    k: Annotated[int, Parameter(name=["--number", "-k"], help="How many items for each user.")] = 10,
    include_seen: Annotated[
        bool, Parameter(help="Also list what users have already.", negative="", show_default=False)
    ] = False,
    output: Output = None,
) -> int:
    """Recommend items: to known users, to new ones by their events, or to one by a history."""
    from diabolo.cli.data import to_columns
    from diabolo.cli.output import check_output, write_columns

    check_output(output, npy=False)
    if sum(given is not None for given in (events, user, history, similar)) > 1:
        raise UsageError("give one of a file of events, --user, --history and --similar")
    fitted = load_recommender(model)
    if fitted is None:
        raise UsageError(f"{model} holds no recommender; diabolo recommend fit makes one")
    past = None if history is None else _ids(history, fitted.items_.values)
    if similar is not None:
        found = fitted.similar_items(_ids(similar, fitted.items_.values)[0], k)
    elif why is not None:
        one = None if user is None else _ids(user, fitted.users_.values)[0]
        if one is None and past is None:
            raise UsageError("--why is about one user: add --user or --history")
        found = fitted.explain(one, _ids(why, fitted.items_.values)[0], k, history=past)
    else:
        asked: Any = None if user is None else _ids(user, fitted.users_.values)
        asked = read_events(events) if events is not None else asked
        found = fitted.recommend(asked, k, history=past, exclude_seen=not include_seen)
    write_columns(output, to_columns(found))
    return 0


def load_recommender(folder: Path) -> Any:
    """Load a recommender that was fitted to events; ``None`` where the folder holds another model."""
    import diabolo
    from diabolo.cli.data import frame_library

    fitted = diabolo.load(folder)
    if not isinstance(fitted, diabolo.Recommender):
        return None
    library = frame_library()
    if fitted.events_ is None or library is None:
        raise UsageError(
            f"{folder} was fitted to a matrix, or there is no frame library here (pip install polars); use Python"
        )
    fitted.events_ = dataclasses.replace(fitted.events_, container=library)
    return fitted


def read_events(path: Path) -> Any:
    """Read events as a frame, whatever their columns are."""
    from diabolo.cli.data import frame_library, read_data

    if frame_library() is None:
        raise UsageError("events need a frame library: pip install polars")
    rows = read_data(path)
    if not rows.columns:
        raise ValueError(
            f"{path} has no columns; expected events, a CSV or Parquet file with a user and an item in each row"
        )
    return rows._table(list(rows.columns))


def _ids(text: str, known: list[Any]) -> list[Any]:
    """Read ids as numbers where the ids of fit are numbers."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if known and isinstance(known[0], int):
        wrong = [part for part in parts if not part.lstrip("-").isdigit()]
        if wrong:
            raise UsageError(f"ids are whole numbers here, and {wrong[0]!r} is none")
        return [int(part) for part in parts]
    return list(parts)


def _models(text: str) -> Any:
    """Build the models named."""
    import diabolo
    import diabolo.zoo
    from diabolo.declare import REGISTRY

    found = []
    for name in text.split(","):
        closed = CLOSED.get(name.strip().lower().replace("_", "-"))
        found.append(getattr(diabolo, closed)() if closed else REGISTRY[find_card(name.strip()).name]())
    return found[0] if len(found) == 1 else tuple(found)
