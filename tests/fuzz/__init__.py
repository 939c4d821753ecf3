"""Hostile input by the thousand: valid small files, damaged by code, must be read or refused with one clear error."""
