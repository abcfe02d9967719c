"""The user's code: which interface it has, how it is loaded, where it runs, and the pipeline around a model without a class."""
