"""`/openapi.json`: FastAPI's description of the routes, completed with the facts that FastAPI cannot know."""
