"""The output of scoring: Table 3, all numbers as TSV with a JSON sidecar, and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bids_alphagan import __version__
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import write_json, write_text, write_tsv
from bids_alphagan.turing.answers import Answers, read_all
from bids_alphagan.turing.kit import PAGE, key_place, page_id, read_key, refuse_inside
from bids_alphagan.turing.score import COLUMNS, EVERYBODY, EVERYTHING, MEASURES, Scores, percent, score
from bids_alphagan.turing.selection import REAL

_TABLE3 = {
    "rater": "name or code",
    "expertise": "none, low, medium or high, as stated by the rater",
    "years": "years of work with MRI, if given",
    "real_misclassified": "real scans called synthetic",
    "right": "right answers",
    "n": "scans",
    "right_share": "share of right answers",
    "right_low": "lower end of its exact 95 % interval",
    "right_high": "upper end of that interval",
    "p_binomial": "two-sided binomial test against one half",
    "minutes": "time that the scans were on the screen",
}


@dataclass(frozen=True)
class Scored:
    """text: to print. left_out: a line for each file that was not scored. folder: of the results."""

    text: str
    left_out: list[str]
    folder: Path
    scores: Scores


def score_kit(
    kit: Path,
    answers: Sequence[Path],
    key: Path | None = None,
    out: Path | None = None,
    margin: float = 0.1,
) -> Scored:
    """Score the answers to a kit and write the results (default: KIT-scores, beside the kit).

    margin: how far the share of right answers may be from 0.5 to count as guessing, in (0, 0.5).

    Raises
    ------
    UserError: no key, a key of another kit, no usable answers, a rater twice, an output folder inside the kit.
    """
    if not 0 < margin < 0.5:
        raise UserError(f"--margin {margin:g}: give a share between 0 and 0.5, such as 0.1 for 40 % to 60 %.")
    truth = read_key(key or key_place(kit))
    _check_kit(kit, truth, key)
    folder = out or kit.absolute().with_name(f"{kit.absolute().name}-scores")
    refuse_inside(kit, folder, "--out")
    raters, left_out = read_all(answers, truth["Kit"], list(truth["Scans"]))
    raters.sort(key=lambda answers: answers.rater.casefold())
    scores = score(truth, raters, margin)
    _write(folder, scores, raters, truth, left_out)
    return Scored(as_text(scores), left_out, folder, scores)


def _check_kit(kit: Path, truth: Mapping[str, Any], key: Path | None) -> None:
    page = kit / PAGE
    if not page.is_file():
        raise UserError(f"{page}: does not exist. KIT is the folder that bids-alphagan-turing make wrote.")
    if (kit_id := page_id(page)) != truth["Kit"]:
        raise UserError(
            f"{key or key_place(kit)}: is the key of kit {truth['Kit']}, but {page} is kit "
            f"{kit_id or 'unknown'}: give the key that was made with it."
        )


def _write(
    folder: Path,
    scores: Scores,
    raters: Sequence[Answers],
    truth: Mapping[str, Any],
    left_out: Sequence[str],
) -> None:
    facts = {
        "Kit": truth["Kit"],
        "Version": __version__,
        "Margin": scores.margin,
        "Answers": [rater.path.name for rater in raters],
        "LeftOut": list(left_out),
        "Statements": scores.statements,
    }
    misses = {f"{model}_misclassified": f"scans of {model} called real" for model in scores.models}
    columns = _TABLE3 | misses
    descriptions = {name: {"Description": columns[name]} for name in scores.table3[0]}
    write_tsv(folder / "table3.tsv", [_clean(row) for row in scores.table3])
    write_json(folder / "table3.json", descriptions | {"Test": facts})
    write_tsv(folder / "turing.tsv", [_clean(row) for row in scores.rows])
    levels = {"measure": {"Description": COLUMNS["measure"], "Levels": MEASURES}}
    described = {name: {"Description": text} for name, text in COLUMNS.items()} | levels
    write_json(folder / "turing.json", described | {"Test": facts})
    write_text(folder / "turing.html", _html(scores, truth, left_out))


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """A rater's name may hold any characters, but must not break the table."""
    return {name: " ".join(v.split()) if isinstance(v, str) else v for name, v in row.items()}


def as_text(scores: Scores) -> str:
    """The tables and statements, for printing."""
    misses = [*(f"{model}_misclassified" for model in scores.models), "real_misclassified"]
    heads = ["rater", "expertise", *(name.replace("_misclassified", "") for name in misses)]
    heads += ["right", "95 % interval", "p", "AUC"]
    body = [
        [
            row["rater"],
            row["expertise"],
            *(str(row[name]) for name in misses),
            f"{row['right']}/{row['n']}",
            f"{percent(row['right_low'])} to {percent(row['right_high'])}",
            p_value(row["p_binomial"]),
            interval(find(scores, row["rater"], EVERYTHING, "auc"), decimals=2),
        ]
        for row in scores.table3
    ]
    lines = ["Misclassified scans and right answers (Table 3)", *_aligned([heads, *body]), ""]
    lines += ["Share called synthetic (95 % interval), and AUC against the real scans"]
    who = EVERYBODY if len(scores.table3) > 1 else scores.table3[0]["rater"]
    detect = [["scans", "called synthetic", "AUC"]]
    for name in [REAL, *scores.models]:
        area = find(scores, who, name, "auc") if name != REAL else None
        called = find(scores, who, name, "called_synthetic")
        detect.append([name, interval(called), interval(area, decimals=2) if area else ""])
    lines += [*_aligned(detect), ""]
    if len(scores.table3) > 1:
        agreed = [find(scores, EVERYBODY, EVERYTHING, name) for name in ("agreement", "kappa")]
        lines += [
            f"Agreement of pairs of raters {interval(agreed[0])}; kappa {interval(agreed[1], decimals=2)}",
            "",
        ]
    return "\n".join([*lines, *scores.statements]) + "\n"


def find(scores: Scores, rater: str, scans: str, measure: str) -> dict[str, Any]:
    """The row of one number."""
    target = (rater, scans, measure)
    return next(row for row in scores.rows if (row["rater"], row["scans"], row["measure"]) == target)


def interval(row: Mapping[str, Any], decimals: int | None = None) -> str:
    """A value and its interval, in percent or with the given number of decimals."""
    if row["value"] is None:
        return "n/a (all answers are the same)"
    text = [percent(v) if decimals is None else f"{v:.{decimals}f}" for v in _numbers(row)]
    return text[0] if len(text) == 1 else f"{text[0]} ({text[1]} to {text[2]})"


def _numbers(row: Mapping[str, Any]) -> list[float]:
    return [row[name] for name in ("value", "low", "high") if row[name] is not None]


def p_value(p: float) -> str:
    """A p-value for display."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _html(scores: Scores, truth: Mapping[str, Any], left_out: Sequence[str]) -> str:
    environment = Environment(
        loader=PackageLoader("bids_alphagan.turing", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": interval, "p_value": p_value}
    return environment.get_template("scores.html.j2").render(
        version=__version__,
        scores=scores,
        kit=truth["Kit"],
        n=len(truth["Scans"]),
        left_out=left_out,
        sets=[REAL, *scores.models],
        everybody=EVERYBODY,
        find=lambda rater, scans, measure: find(scores, rater, scans, measure),
    )
