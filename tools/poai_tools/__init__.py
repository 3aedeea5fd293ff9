"""Tools around the specification: compiler, models, benches, and the `poai` command."""
