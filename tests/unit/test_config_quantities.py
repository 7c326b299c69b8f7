import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drumd.config.quantities import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("500ms", 0.5),
        ("250us", 0.00025),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1h30m15s500ms", 5415.5),
        ("2d", 172_800.0),
        ("1.5s", 1.5),
        (" 30s ", 30.0),
        ("30", 30.0),
        ("0", 0.0),
        ("-3", -3.0),
        (30, 30.0),
        (0.25, 0.25),
    ],
)
def test_durations_are_read(text: object, seconds: float) -> None:
    """A duration is a number of seconds, or numbers with units from large to small."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "wrong",
    [
        *("10 sec", "", "s", "1m1h", "1s1s", "1e3", "-3s", "30S", "1h 30m", "nan", "inf", ".5s"),
        *(True, False, None, [], math.nan, math.inf, -math.inf, 10**400),
    ],
)
def test_what_is_no_duration_is_refused(wrong: object) -> None:
    """What is no duration is refused with the value and examples, booleans and NaN included."""
    with pytest.raises(
        ValueError, match=r"cannot read .* as a duration; write e\.g\. 30s"
    ) as caught:
        parse_duration(wrong)
    assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MB", 512 * 10**6),
        ("512MiB", 512 * 2**20),
        ("1G", 10**9),
        ("1g", 10**9),
        ("1Gi", 2**30),
        ("2 TiB", 2 * 2**40),
        ("1.5GB", 1_500_000_000),
        ("10kb", 10_000),
        ("7B", 7),
        ("7", 7),
        (7, 7),
        (7.0, 7),
    ],
)
def test_sizes_are_read(text: object, size: int) -> None:
    """A size is a number of bytes, or one with a unit of powers of 1000 or of 1024."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "wrong",
    [*("", "MB", "10 parsecs", "1e3", "-1MB", "1MB2", "nan"), True, None, [], math.nan, math.inf],
)
def test_what_is_no_size_is_refused(wrong: object) -> None:
    """What is no size is refused with the value and examples, booleans and NaN included."""
    with pytest.raises(ValueError, match=r"cannot read .* as a size; write e\.g\. 512MB") as caught:
        parse_size(wrong)
    assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("wrong", ["0.5B", "1.0001KB", 1.5])
def test_parts_of_a_byte_are_refused(wrong: object) -> None:
    """A size that is no whole number of bytes is refused and says so."""
    with pytest.raises(ValueError, match="no whole number of bytes"):
        parse_size(wrong)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (75, "75s"),
        (120, "2m"),
        (150, "2m30s"),
        (5400, "1h30m"),
        (86_400, "1d"),
    ],
)
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    """A duration is shown with the units that a person would choose."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (7, "7B"), (512 * 10**6, "512MB"), (512 * 2**20, "512MiB"), (1_500_000, "1500KB")],
)
def test_sizes_are_written_as_people_do(size: int, text: str) -> None:
    """A size is shown in the largest unit that is exact."""
    assert format_size(size) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_duration_is_read_back(seconds: float) -> None:
    """Every duration that is shown reads back as the same number."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=2**70))
def test_a_written_size_is_read_back(size: int) -> None:
    """Every size that is shown reads back as the same number."""
    assert parse_size(format_size(size)) == size
