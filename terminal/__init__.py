"""What a person sees: tables, progress bars, the demo, and the whole Procfile in one terminal."""
