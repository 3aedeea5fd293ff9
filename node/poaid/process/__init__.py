"""The process and its machine: where programs begin, signals, streams, logs."""
