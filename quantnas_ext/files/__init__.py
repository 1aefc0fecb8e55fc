"""What is read and written: whole files and folders or none, locks, paths, checked YAML, JSON values."""
