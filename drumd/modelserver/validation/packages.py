"""What a model directory's requirements.txt asks for, against what is installed."""

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from drumd.modelserver.validation.steps import Step, ok, skipped, warning

_NAME = "packages"
_FILE = "requirements.txt"


def check_packages(code_dir: Path) -> Step:
    """Compare; a difference is a warning, since whether it matters shows when the model loads."""
    path = code_dir / _FILE
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return skipped(_NAME, f"no {_FILE}")
    except (OSError, UnicodeDecodeError) as error:
        return warning(_NAME, f"cannot read {_FILE}: {error}")
    try:
        import packaging.requirements  # noqa: F401, PLC0415 - gunicorn brings it; not all have that
    except ImportError:
        return skipped(_NAME, "cannot compare versions without the package packaging")
    wrong = list(_differences(lines))
    if wrong:
        return warning(_NAME, "; ".join(wrong), f"run: pip install -r {path}")
    return ok(_NAME, f"as {_FILE} has them")


def _differences(lines: list[str]) -> Iterator[str]:
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415 - see above

    for line in lines:
        text = line.partition(" #")[0].strip()
        # Options (-r, --hash) and links are pip's business.
        if not text or text.startswith(("#", "-")) or "://" in text:
            continue
        try:
            wanted = Requirement(text.rstrip("\\").partition(" --")[0].strip())
        except InvalidRequirement:
            yield f"{text!r} is no requirement"
            continue
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield f"{wanted.name} is not installed"
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            yield f"{wanted.name} is {found}, wanted {wanted.specifier}"
