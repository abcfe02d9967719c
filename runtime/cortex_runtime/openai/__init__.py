"""The objects of the OpenAI-compatible routes. Pure: serving/openai_routes.py calls the handler and sends what this returns."""
