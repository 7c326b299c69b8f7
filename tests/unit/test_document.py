import pytest

from drumd.wire.document import Document


class Small(Document):
    name: str
    size: int = 3


class Other(Document):
    name: str
    size: int = 3


class Outer(Document):
    inner: Small


def test_fields_have_defaults_and_names() -> None:
    """A document takes its fields by name, and the defaults of its class for the others."""
    small = Small(name="a")
    assert (small.name, small.size) == ("a", 3)
    assert Small(name="a", size=4).size == 4
    assert repr(small) == "Small(name='a', size=3)"


@pytest.mark.parametrize("fields", [{}, {"size": 1}, {"name": "a", "sise": 1}])
def test_wrong_fields_are_refused(fields: dict[str, object]) -> None:
    """A missing field and an unknown one are errors, as with a dataclass."""
    with pytest.raises(TypeError, match="Small: unknown fields"):
        Small(**fields)  # type: ignore[arg-type]


def test_documents_are_equal_within_their_kind() -> None:
    """Documents are equal when their kind and all their fields are."""
    assert Small(name="a") == Small(name="a", size=3)
    assert Small(name="a") != Small(name="b")
    assert Small(name="a") != Other(name="a")


def test_documents_do_not_change() -> None:
    """A document's fields cannot be set; it shows documents within it as plain data."""
    small = Small(name="a")
    with pytest.raises(AttributeError, match="cannot set name of a Small"):
        small.name = "b"  # type: ignore[misc]
    assert Outer(inner=small).fields() == {"inner": {"name": "a", "size": 3}}
