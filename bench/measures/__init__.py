"""The questions, one a module; each answers with a `bench.report.Result`."""
