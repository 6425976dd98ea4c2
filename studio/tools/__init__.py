"""Function calling: tools that a model may call, MCP servers, and the loop that carries the calls out."""
