"""HTTP as the workers speak it: uvicorn with our protocol, request bodies in, responses out, API keys."""
