"""Reading the raters' files, which come from any browser and may have been edited."""

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
_LONGEST = 366 * 86_400_000  # milliseconds on one scan, a year
_OLDEST = 100  # years of work


class UnusableError(Exception):
    """A file of answers cannot be scored and is left out, with this reason."""


@dataclass(frozen=True)
class Answers:
    """One rater's answers.

    synthetic: by scan name in the kit, whether it was called synthetic. confidence: 1 (guessing) to 5.
    minutes: total time with the scans on the screen. years: of work with MRI, if given.
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

    Raises UnusableError, with the reason: missing, not a file of answers, from another kit, incomplete, changed.
    """
    content = _parse(path)
    if content.get("format") != ANSWERS_FORMAT:
        raise UnusableError("is not an answers file of bids-alphagan-turing")
    if content.get("kit") != kit:
        raise UnusableError(f"belongs to another kit ({str(content.get('kit'))[:20]}, not {kit})")
    try:
        return _checked(path, content, scans)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableError(
            f"is damaged or was changed ({type(error).__name__}: {error}). Ask for the file as downloaded"
        ) from error


def _parse(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise UnusableError("is far too large for answers")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UnusableError(f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"is not JSON ({error}): it is truncated, or another file") from error
    if not isinstance(content, dict):
        raise UnusableError("is not an answers file of bids-alphagan-turing")
    return content


def _checked(path: Path, content: Mapping[str, Any], scans: Sequence[str]) -> Answers:
    order, given = [str(name) for name in content["order"]], list(content["answers"])
    if sorted(order) != sorted(scans):
        raise ValueError("the order of the scans is not one of this kit's scans")
    if content["checksum"] != checksum(content):
        raise ValueError("the checksum does not match the answers")
    if [answer["scan"] for answer in given] != order[: len(given)]:
        raise ValueError("the answers are not in the order in which the scans were shown")
    for answer in given:
        if answer["answer"] not in ("real", "synthetic") or type(answer["confidence"]) is not int:
            raise ValueError(f"scan {answer['scan']} has no valid answer")
        if answer["confidence"] not in CONFIDENCES:
            raise ValueError(f"scan {answer['scan']} has a confidence of {answer['confidence']}")
        if type(answer["milliseconds"]) is not int or not 0 <= answer["milliseconds"] <= _LONGEST:
            raise ValueError(f"scan {answer['scan']} has no valid time in milliseconds")
    # Terminals interpret some invisible characters.
    rater = "".join(c for c in str(content["rater"]) if c.isprintable()).strip()
    years = content.get("years")
    if not rater or content["expertise"] not in EXPERTISE:
        raise ValueError("rater or expertise is missing or invalid")
    if len(given) < len(order):
        raise UnusableError(f"is incomplete: rater {rater} answered {len(given)} of {len(order)} scans")
    return Answers(
        path=path,
        session=str(content["session"]),
        rater=rater,
        expertise=str(content["expertise"]),
        years=years if type(years) is int and 0 <= years <= _OLDEST else None,
        synthetic={answer["scan"]: answer["answer"] == "synthetic" for answer in given},
        confidence={answer["scan"]: answer["confidence"] for answer in given},
        minutes=sum(answer["milliseconds"] for answer in given) / 60000,
    )


def checksum(content: Mapping[str, Any]) -> int:
    """CRC-32 over the content of an answers file, as in page/state.js; detects accidents, not fraud."""
    lines = [
        content["kit"],
        content["session"],
        content["rater"],
        content["expertise"],
        " ".join(content["order"]),
    ]
    lines += [
        " ".join(str(answer[key]) for key in ("scan", "answer", "confidence", "milliseconds"))
        for answer in content["answers"]
    ]
    return zlib.crc32("\n".join(lines).encode())


def read_all(paths: Sequence[Path], kit: str, scans: Sequence[str]) -> tuple[list[Answers], list[str]]:
    """All usable files, in the given order, and a line for each file that is left out.

    Raises UserError if a rater answered twice, or if a session exists in two versions, because only the user can
    know which of them counts.
    """
    usable: list[Answers] = []
    left_out: list[str] = []
    for path in paths:
        try:
            answers = read_answers(path, kit, scans)
        except UnusableError as error:
            left_out.append(f"{path}: left out: it {error}.")
            continue
        twin = next((other for other in usable if _same_person(other, answers)), None)
        if twin is None:
            usable.append(answers)
        elif _content(twin) == _content(answers):
            left_out.append(f"{path}: left out: it is a copy of {twin.path}.")
        else:
            raise UserError(
                f"{path}: rater {answers.rater} gave other answers in {twin.path}. A rater "
                "counts once: give only one of the two files."
            )
    if not usable:
        raise UserError("; ".join(left_out).replace(": left out: it", ":") + " Nothing is left to score.")
    return usable, left_out


def _same_person(first: Answers, second: Answers) -> bool:
    return first.session == second.session or first.rater.casefold() == second.rater.casefold()


def _content(answers: Answers) -> tuple[Any, ...]:
    return answers.session, answers.rater, answers.synthetic, answers.confidence
