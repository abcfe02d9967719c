"""The OpenAPI document of an API and the page that shows it. Imported at the first request for one of them."""
