"""Packmule inside of other libraries: each part imports its library only when it is used."""
