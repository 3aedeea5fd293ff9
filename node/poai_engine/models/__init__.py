"""Model files: reading, converting, keeping, fetching and making them."""
