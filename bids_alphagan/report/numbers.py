"""Formats of numbers."""

import math
from collections.abc import Mapping
from typing import Any


def number(value: Any) -> str:
    """Four significant digits, without exponents for common magnitudes. Other values as str()."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def decimals(cell: Mapping[str, Any]) -> int:
    """Decimal places for two significant digits of the interval's width, or four of the value."""
    width = 0 if cell["low"] is None else cell["high"] - cell["low"]
    scale, digits = (width, 2) if width else (cell["value"], 4)
    return max(0, digits - 1 - math.floor(math.log10(abs(scale)))) if scale else digits
