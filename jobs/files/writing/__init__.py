"""Writing tables: what an output is, its formats, partitions, and the schema that it keeps to."""
