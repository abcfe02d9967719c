"""User code: recognize its interface, load it and run it; the pipeline around a model that is served without a class."""
