"""Server-side apply of one child object, and how changes by other writers are found and reverted."""
