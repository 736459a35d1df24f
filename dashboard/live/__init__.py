"""Live pages: one subscription of the process feeds all viewers, and what many ask for is made once."""
