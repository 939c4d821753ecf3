"""The table of stacks, and what makes a stack ready: ingest and weigh."""
