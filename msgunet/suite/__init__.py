"""Suites: the file, its runs, their resource requirements, the forecast and the status."""
