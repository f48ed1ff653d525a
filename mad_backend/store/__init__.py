"""Where state lives: one database for rows, a folder for files."""
