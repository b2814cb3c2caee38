"""SQLite rows: what was asked for, never what is."""
