"""Reading the raters' files. They were written by anybody's browser and may have been edited since."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_alphagan.common.errors import UserError

ANSWERS_FORMAT = "bids-alphagan turing answers 1"
EXPERTISE = ("none", "low", "medium", "high")
CONFIDENCES = range(1, 6)  # guessing ... certain
_LARGEST = 10_000_000  # bytes
_LONGEST = 366 * 86_400_000  # milliseconds on one scan: a page that was left open for a year
_OLDEST = 100  # years of work


class UnusableError(Exception):
    """One file of answers cannot be scored: it is left out, with this reason."""


@dataclass(frozen=True)
class Answers:
    """One rater's answers.

    synthetic: whether a scan was called synthetic, by its name in the kit. confidence: 1 (guessing) to 5.
    minutes: that the scans were on the screen, together. years: of work with MRI, where told.
    """

    path: Path
    session: str
    rater: str
    expertise: str
    years: int | None
    synthetic: dict[str, bool]
    confidence: dict[str, int]
    minutes: float


def read_answers(path: Path, kit: str, scans: Sequence[str]) -> Answers:
    """Read one file and check it against a kit's id and the names of its scans.

    Raises UnusableError, with the reason: no such file, not answers, of another kit, incomplete, changed.
    """
    told = _parse(path)
    if told.get("format") != ANSWERS_FORMAT:
        raise UnusableError("is not an answers file of bids-alphagan-turing")
    if told.get("kit") != kit:
        raise UnusableError(f"belongs to another kit ({str(told.get('kit'))[:20]}, not {kit})")
    try:
        return _checked(path, told, scans)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableError(
            f"is damaged or was changed ({type(error).__name__}: {error}). Ask for the file as downloaded"
        ) from error


def _parse(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise UnusableError("is far too large for answers")
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UnusableError(f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"is not JSON ({error}): it was cut off, or is another file") from error
    if not isinstance(told, dict):
        raise UnusableError("is not an answers file of bids-alphagan-turing")
    return told


def _checked(path: Path, told: Mapping[str, Any], scans: Sequence[str]) -> Answers:
    order, given = [str(name) for name in told["order"]], list(told["answers"])
    if sorted(order) != sorted(scans):
        raise ValueError("the order of the scans is not one of this kit's scans")
    if told["checksum"] != checksum(told):
        raise ValueError("the checksum does not fit the answers")
    if [one["scan"] for one in given] != order[: len(given)]:
        raise ValueError("the answers are not in the order in which the scans were shown")
    for one in given:
        if one["answer"] not in ("real", "synthetic") or type(one["confidence"]) is not int:
            raise ValueError(f"scan {one['scan']} has no proper answer")
        if one["confidence"] not in CONFIDENCES:
            raise ValueError(f"scan {one['scan']} has a confidence of {one['confidence']}")
        if type(one["milliseconds"]) is not int or not 0 <= one["milliseconds"] <= _LONGEST:
            raise ValueError(f"scan {one['scan']} has no proper time in milliseconds")
    # A terminal would obey some characters that cannot be seen.
    rater = "".join(c for c in str(told["rater"]) if c.isprintable()).strip()
    years = told.get("years")
    if not rater or told["expertise"] not in EXPERTISE:
        raise ValueError("it does not say who answered, and with what expertise")
    if len(given) < len(order):
        raise UnusableError(f"is incomplete: rater {rater} answered {len(given)} of {len(order)} scans")
    return Answers(
        path=path,
        session=str(told["session"]),
        rater=rater,
        expertise=str(told["expertise"]),
        years=years if type(years) is int and 0 <= years <= _OLDEST else None,
        synthetic={one["scan"]: one["answer"] == "synthetic" for one in given},
        confidence={one["scan"]: one["confidence"] for one in given},
        minutes=sum(one["milliseconds"] for one in given) / 60000,
    )


def checksum(told: Mapping[str, Any]) -> int:
    """CRC-32 over what counts in an answers file, as page/state.js has it: finds accidents, not fraud."""
    lines = [told["kit"], told["session"], told["rater"], told["expertise"], " ".join(told["order"])]
    lines += [
        " ".join(str(one[key]) for key in ("scan", "answer", "confidence", "milliseconds"))
        for one in told["answers"]
    ]
    return zlib.crc32("\n".join(lines).encode())


def read_all(paths: Sequence[Path], kit: str, scans: Sequence[str]) -> tuple[list[Answers], list[str]]:
    """Every usable file, in the order given, and a line for each that is left out.

    Raises UserError where one rater answered twice, or one session comes in two versions: which of them
    counts cannot be known from here.
    """
    found: list[Answers] = []
    left_out: list[str] = []
    for path in paths:
        try:
            answers = read_answers(path, kit, scans)
        except UnusableError as error:
            left_out.append(f"{path}: left out: it {error}.")
            continue
        twin = next((one for one in found if _same_person(one, answers)), None)
        if twin is None:
            found.append(answers)
        elif _content(twin) == _content(answers):
            left_out.append(f"{path}: left out: it is a copy of {twin.path}.")
        else:
            raise UserError(
                f"{path}: rater {answers.rater} has already answered in {twin.path}, otherwise. A rater "
                "counts once: give only the file that is to count."
            )
    if not found:
        raise UserError("; ".join(left_out).replace(": left out: it", ":") + " Nothing is left to score.")
    return found, left_out


def _same_person(first: Answers, second: Answers) -> bool:
    return first.session == second.session or first.rater.casefold() == second.rater.casefold()


def _content(answers: Answers) -> tuple[Any, ...]:
    return answers.session, answers.rater, answers.synthetic, answers.confidence
