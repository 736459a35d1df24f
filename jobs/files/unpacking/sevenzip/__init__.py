"""7z: a header at the end says what is in the packed streams in front of it."""
