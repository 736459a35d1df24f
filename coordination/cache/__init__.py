"""The cache: values computed once and kept for a while."""
