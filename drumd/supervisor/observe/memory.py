"""The memory of processes."""


def resident_memory(pid: int) -> int | None:
    """Return the resident set of `pid` in bytes, None when it is gone."""
    # Imported with the first question: the workers are started before anybody asks one.
    import psutil  # noqa: PLC0415

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
