"""`cortex dev`: a development copy of an API in a cluster that follows the files of a local folder."""
