"""The one text form of each Avro logical type, and the way back.

Integer arithmetic only: `datetime` ends at the year 9999 and at microseconds, Avro's longs do not. Years outside 0 to
9999 are written with a sign and at least six digits (ISO 8601 expanded years, as ECMAScript writes them). Values that a
logical type forbids (a time of day beyond midnight) keep a readable form, so that conversion is total. Errors never
name the text itself: it is business data.
"""

import re
from struct import Struct
from typing import Final

_DAY_S: Final = 86_400
_UNITS: Final = {3: 1_000, 6: 1_000_000, 9: 1_000_000_000}
_DURATION: Final = Struct("<III")
_DATE: Final = r"(\d{4}|[+-]\d{6,12})-(\d\d)-(\d\d)"
_TIME: Final = r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?"
_DATE_TEXT: Final = re.compile(_DATE, re.ASCII)
_TIME_TEXT: Final = re.compile(r"(-?)(\d{2,10}):(\d\d):(\d\d)(?:\.(\d{1,9}))?", re.ASCII)
_TIMESTAMP_TEXT: Final = re.compile(f"{_DATE}T{_TIME}(Z?)", re.ASCII)
_DURATION_TEXT: Final = re.compile(r"P(?:(\d+)M)?(?:(\d+)D)?(?:T(\d+)(?:\.(\d{1,3}))?S)?", re.ASCII)
_DECIMAL_TEXT: Final = re.compile(r"(-?)(\d+)(?:\.(\d+))?", re.ASCII)


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a day count from 1970-01-01 in the proleptic Gregorian calendar (eras of 400 years)."""
    days += 719_468  # from 0000-03-01: leap days then fall on the end of a year
    era, day_of_era = divmod(days, 146_097)
    year = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    return year + era * 400 + (month <= 2), month, day


def _days(year: int, month: int, day: int) -> int:
    """The day count from 1970-01-01; the reverse of `_civil`."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


def date_text(days: int) -> str:
    """`YYYY-MM-DD` of a day count from 1970-01-01."""
    year, month, day = _civil(days)
    if 0 <= year <= 9999:
        return f"{year:04}-{month:02}-{day:02}"
    return f"{year:+07}-{month:02}-{day:02}"


def _date_of(match: re.Match[str]) -> int:
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    days = _days(year, month, day)
    if _civil(days) != (year, month, day):
        raise ValueError("no day of the calendar")
    return days


def parse_date(text: str) -> int:
    """The day count of `YYYY-MM-DD`.

    Raises:
        ValueError: if `text` is no such date.
    """
    match = _DATE_TEXT.fullmatch(text)
    if match is None:
        raise ValueError("does not read YYYY-MM-DD")
    return _date_of(match)


def time_text(units: int, digits: int) -> str:
    """`HH:MM:SS.fff` of a count of 10^-`digits` seconds from midnight."""
    sign, units = ("-", -units) if units < 0 else ("", units)
    seconds, fraction = divmod(units, _UNITS[digits])
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{sign}{hour:02}:{minute:02}:{second:02}.{fraction:0{digits}}"


def parse_time(text: str, digits: int) -> int:
    """The count of 10^-`digits` seconds from midnight of `HH:MM:SS.fff`.

    Raises:
        ValueError: if `text` is no such time, or is more precise than `digits` tell.
    """
    match = _TIME_TEXT.fullmatch(text)
    if match is None or int(match[3]) > 59 or int(match[4]) > 59:
        raise ValueError(f"does not read HH:MM:SS.{'f' * digits}")
    seconds = int(match[2]) * 3600 + int(match[3]) * 60 + int(match[4])
    units = seconds * _UNITS[digits] + _fraction(match[5], digits)
    return -units if match[1] else units


def timestamp_text(units: int, digits: int, suffix: str = "Z") -> str:
    """`YYYY-MM-DDTHH:MM:SS.fffZ` of a count of 10^-`digits` seconds from 1970-01-01T00:00:00."""
    seconds, fraction = divmod(units, _UNITS[digits])
    days, of_day = divmod(seconds, _DAY_S)
    minutes, second = divmod(of_day, 60)
    hour, minute = divmod(minutes, 60)
    return f"{date_text(days)}T{hour:02}:{minute:02}:{second:02}.{fraction:0{digits}}{suffix}"


def parse_timestamp(text: str, digits: int, suffix: str = "Z") -> int:
    """The count of 10^-`digits` seconds from 1970-01-01T00:00:00 of `YYYY-MM-DDTHH:MM:SS.fffZ`.

    Raises:
        ValueError: if `text` is no such timestamp, or is more precise than `digits` tell.
    """
    match = _TIMESTAMP_TEXT.fullmatch(text)
    if match is None or match[8] != suffix or int(match[4]) > 23 or int(match[5]) > 59 or int(match[6]) > 59:
        raise ValueError(f"does not read YYYY-MM-DDTHH:MM:SS.{'f' * digits}{suffix}")
    seconds = _date_of(match) * _DAY_S + int(match[4]) * 3600 + int(match[5]) * 60 + int(match[6])
    return seconds * _UNITS[digits] + _fraction(match[7], digits)


def _fraction(text: str | None, digits: int) -> int:
    if text is None:
        return 0
    kept, rest = text[:digits].ljust(digits, "0"), text[digits:]
    if rest.strip("0"):
        raise ValueError(f"more precise than the {digits} decimals of a second that the type holds")
    return int(kept)


def duration_text(raw: bytes) -> str:
    """`P<months>M<days>DT<seconds>.<milliseconds>S` of Avro's twelve bytes."""
    months, days, milliseconds = _DURATION.unpack(raw)
    return f"P{months}M{days}DT{milliseconds // 1000}.{milliseconds % 1000:03}S"


def parse_duration(text: str) -> bytes:
    """Avro's twelve bytes of a duration in months, days and seconds.

    Raises:
        ValueError: if `text` is no such duration or a part of it does not fit in 32 bits.
    """
    match = _DURATION_TEXT.fullmatch(text)
    if match is None or text in ("P", ""):
        raise ValueError("does not read P<months>M<days>DT<seconds>S")
    months, days, seconds = (int(part or 0) for part in match.groups()[:3])
    parts = (months, days, seconds * 1000 + int((match[4] or "0").ljust(3, "0")))
    if max(parts) > 0xFFFFFFFF:
        raise ValueError("longer than Avro's duration holds")
    return _DURATION.pack(*parts)


def decimal_text(unscaled: int, scale: int) -> str:
    """An unscaled number with its decimal point `scale` digits from the right."""
    if scale == 0:
        return str(unscaled)
    sign, digits = ("-", str(-unscaled)) if unscaled < 0 else ("", str(unscaled))
    digits = digits.rjust(scale + 1, "0")
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"


def parse_decimal(text: str, precision: int, scale: int) -> int:
    """The unscaled number of a decimal.

    Raises:
        ValueError: if `text` is no decimal, has more decimals than `scale`, or more digits than `precision`.
    """
    match = _DECIMAL_TEXT.fullmatch(text)
    if match is None:
        raise ValueError("not a decimal number")
    fraction = match[3] or ""
    if fraction[scale:].strip("0"):
        raise ValueError(f"more than the {scale} decimals that the type holds")
    digits = (match[2] + fraction[:scale].ljust(scale, "0")).lstrip("0") or "0"
    if len(digits) > precision:
        raise ValueError(f"more than the {precision} digits that the type holds")
    return -int(digits) if match[1] else int(digits)
