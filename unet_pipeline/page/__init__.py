"""Parts of the report page: figures, tables, sections; no stage logic."""
