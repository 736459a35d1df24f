"""The MCP server: what assistants may ask of jobs, and with leave do to them."""
