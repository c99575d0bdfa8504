"""``pyg-lth recommend``: answers from a ticket."""

import csv
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from pyg_lth.cli.streams import hand_out
from pyg_lth.errors import InputError

if TYPE_CHECKING:
    from pyg_lth.tickets import Recommendation, Ticket

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
COLUMNS = ("user", "rank", "item", "score", "basis")

# Answers that are written to a Parquet file in one go.
ANSWERS_AT_ONCE = 4096


@click.command()
@click.argument("path", metavar="TICKET", type=FILE)
@click.option("--user", "users", multiple=True, help="Id of a user; may come several times.")
@click.option("--all", "everyone", is_flag=True, help="Answer for every user.")
@click.option("--history", multiple=True, help="Id of an item of someone who was not in training.")
@click.option(
    "--history-file",
    type=FILE,
    help="CSV of user,item: answer for each of these users by their items.",
)
@click.option("--similar-to", help="Id of an item: find those like it.")
@click.option("-k", "k", type=click.IntRange(min=1), default=20, show_default=True, help="Items.")
@click.option(
    "--exclude",
    type=FILE,
    help="File of items to leave out: an id a line for all users, or CSV of user,item.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an answer a line.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "parquet"]),
    help="A row for each item.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; parquet needs one.  [default: stdout]",
)
def recommend(
    path: Path,
    users: tuple[str, ...],
    everyone: bool,
    history: tuple[str, ...],
    history_file: Path | None,
    similar_to: str | None,
    k: int,
    exclude: Path | None,
    as_json: bool,
    form: str | None,
    out: Path | None,
) -> None:
    """Recommend items from the file TICKET.

    What a user had in training is left out. A user who is not known gets what is popular, and the
    answer says so.
    """
    asked = [bool(users), everyone, bool(history), history_file is not None, similar_to is not None]
    if sum(asked) != 1:
        raise InputError("give one of --user, --all, --history, --history-file and --similar-to")
    if as_json and form:
        raise InputError(f"--json and --format {form} are two forms: give one")
    if form == "parquet" and out is None:
        raise InputError("--format parquet writes no text: give --out FILE")

    from pyg_lth.tickets import Ticket

    ticket = Ticket.load(path)
    leave_out = {} if exclude is None else _items_by_user(exclude)
    answers: Iterable[Recommendation]
    if similar_to is not None:
        answers = [_similar(ticket, similar_to, k, leave_out)]
    elif history or history_file is not None:
        lists = {None: list(history)} if history_file is None else _items_by_user(history_file)
        if history_file is not None and None in lists:
            raise InputError(f"{history_file}: a line has no user; give user,item in each")
        answers = (
            dataclasses.replace(
                ticket.recommend_for(
                    items, k, [*leave_out.get(None, []), *leave_out.get(user, [])]
                ),
                user=user,
            )
            for user, items in lists.items()
        )
    elif everyone and not leave_out:
        answers = ticket.recommend_all(k)
    else:
        asked_for = ticket.user_ids.at(range(ticket.num_users)) if everyone else list(users)
        answers = _excluding(ticket, asked_for, k, leave_out)
    _write(answers, "json" if as_json else form or "text", out)


def _similar(
    ticket: "Ticket", item: str, k: int, leave_out: dict[str | None, list[str]]
) -> "Recommendation":
    from pyg_lth.tickets import Recommendation

    out = set(leave_out.get(None, []))
    found = ticket.similar(item, k + len(out))
    kept = [(other, score) for other, score in found if str(other) not in out][:k]
    return Recommendation(None, [i for i, _ in kept], [s for _, s in kept], "similarity")


def _excluding(
    ticket: "Ticket", users: list[Any], k: int, leave_out: dict[str | None, list[str]]
) -> Iterator["Recommendation"]:
    everywhere = leave_out.get(None, [])
    for begin in range(0, len(users), ANSWERS_AT_ONCE):
        some = users[begin : begin + ANSWERS_AT_ONCE]
        out = {user: [*everywhere, *leave_out.get(str(user), [])] for user in some}
        yield from ticket.recommend(some, k, exclude=out if len(leave_out) > 0 else ())


def _items_by_user(path: Path) -> dict[str | None, list[str]]:
    """Items of each user in a file, those of no user under :obj:`None`."""
    found: dict[str | None, list[str]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                cells = [cell.strip() for cell in row]
                if not any(cells):
                    continue
                if len(cells) > 2 or not all(cells):
                    raise InputError(f"{path}, line {number}: give item or user,item")
                if number == 1 and cells[-1] in ("item", "item_id"):
                    continue
                user = cells[0] if len(cells) == 2 else None
                found.setdefault(user, []).append(cells[-1])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no text in UTF-8: {error}") from None
    return found


def _write(answers: Iterable["Recommendation"], form: str, out: Path | None) -> None:
    if out is None:
        _write_text(answers, form, hand_out)
        return
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        if form == "parquet":
            _write_parquet(answers, temporary)
        else:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                _write_text(answers, form, file.write)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _rows(answers: Iterable["Recommendation"]) -> Iterator[tuple[Any, ...]]:
    for answer in answers:
        for place, (item, score) in enumerate(zip(answer.items, answer.scores, strict=True), 1):
            yield answer.user, place, item, score, answer.basis


def _write_text(
    answers: Iterable["Recommendation"], form: str, write: Callable[[str], object]
) -> None:
    if form == "csv":
        file: Any = SimpleNamespace(write=write)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_rows(answers))
        return
    for answer in answers:
        if form == "json":
            write(json.dumps(dataclasses.asdict(answer), ensure_ascii=False) + "\n")
            continue
        write(f"{_heading(answer)}\n")
        width = max((len(str(item)) for item in answer.items), default=0)
        for _, place, item, score, _ in _rows([answer]):
            write(f"{place:>4}  {item!s:<{width}}  {score:.4f}\n")


def _heading(answer: "Recommendation") -> str:
    basis = {
        "trained": "by their embedding",
        "history": "by the items given",
        "popularity": "not known: what is popular",
        "similarity": "the most similar items",
    }[answer.basis]
    return basis if answer.user is None else f"user {answer.user}: {basis}"


def _write_parquet(answers: Iterable["Recommendation"], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = _rows(answers)
    writer = None
    while block := list(itertools.islice(rows, 20 * ANSWERS_AT_ONCE)):
        columns = dict(zip(COLUMNS, map(list, zip(*block, strict=True)), strict=True))
        schema = None if writer is None else writer.schema
        table = pyarrow.table(columns, schema=schema)
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is None:
        raise InputError("there is no answer to write")
    writer.close()
