"""What lies in the data directory."""
