"""An app that fails at import."""

raise RuntimeError("asked to fail at import")
