"""Where models lie and how their folders are read."""
