"""The configuration: its sections and keys, their checks, YAML files."""
