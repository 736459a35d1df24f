"""What the guard judges by: where a request comes from, its site, its size, and what browsers may do."""
