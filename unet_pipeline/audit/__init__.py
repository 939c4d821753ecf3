"""Audits of results: coverage, verify, prove, record, differs."""
